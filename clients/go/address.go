package visavis

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// DefaultAddress is where a server listens unless its settings say otherwise.
const DefaultAddress = "127.0.0.1:8001"

var (
	gRPCTarget = regexp.MustCompile(`^(dns|passthrough|xds):`)
	hostPort   = regexp.MustCompile(`^(\[[^]]+\]|[^:/\s]+):(\d+)$`)
)

// checkAddress returns whether an address is on this machine, and an error if it is none.
func checkAddress(address string) (local bool, err error) {
	if strings.HasPrefix(address, "unix:") {
		return true, nil
	}
	if gRPCTarget.MatchString(address) {
		return false, nil
	}
	if strings.Contains(address, "://") {
		return false, invalidSettings("address %q is a URL; write HOST:PORT or unix:PATH", address)
	}
	parts := hostPort.FindStringSubmatch(address)
	if parts == nil || !isPort(parts[2]) {
		hint := fmt.Sprintf("write HOST:PORT, such as %s, or unix:PATH", DefaultAddress)
		return false, invalidSettings("invalid address %q; %s", address, hint)
	}
	host := strings.Trim(parts[1], "[]")
	return host == "localhost" || net.ParseIP(host).IsLoopback(), nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}
