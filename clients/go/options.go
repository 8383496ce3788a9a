package visavis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// DefaultTimeout is the timeout of calls whose context has no deadline.
const DefaultTimeout = 30 * time.Second

// An Option configures a [Client].
type Option func(*settings) error

type settings struct {
	timeout time.Duration
	tls     *tls.Config
	token   string
	headers headers
	dial    []grpc.DialOption
}

// WithTimeout sets the timeout of calls whose context has no deadline. It covers the whole call,
// retries included.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) error {
		if timeout <= 0 {
			return invalidSettings("timeout is %v; it must be above 0", timeout)
		}
		s.timeout = timeout
		return nil
	}
}

// WithTLS encrypts the connection. A nil config trusts the system's authorities.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) error {
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		s.tls = config
		return nil
	}
}

// WithTLSFiles encrypts the connection, with PEM files: authority signs server certificates,
// certificate and key belong to the client, for servers that require mutual TLS. Without an
// authority, that is "", the system's are trusted; without certificate and key, the client has
// none.
func WithTLSFiles(authority, certificate, key string) Option {
	return func(s *settings) error {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if authority != "" {
			pem, err := os.ReadFile(authority)
			if err != nil {
				return invalidSettings("can't read the authority: %v", err)
			}
			config.RootCAs = x509.NewCertPool()
			if !config.RootCAs.AppendCertsFromPEM(pem) {
				return invalidSettings("%s contains no PEM certificate", authority)
			}
		}
		if (certificate == "") != (key == "") {
			return invalidSettings(
				"a client certificate needs its private key; give both or neither")
		}
		if certificate != "" {
			own, err := tls.LoadX509KeyPair(certificate, key)
			if err != nil {
				return invalidSettings("can't use the client certificate: %v", err)
			}
			config.Certificates = []tls.Certificate{own}
		}
		s.tls = config
		return nil
	}
}

// WithToken sends a bearer token with every call. Without TLS, [New] accepts it only for servers on
// this machine: elsewhere anyone on the network could read it.
func WithToken(token string) Option {
	return func(s *settings) error {
		s.token = strings.TrimSpace(token)
		if s.token == "" || !isPrintable(s.token) {
			return invalidSettings("the token is empty or has characters that are not allowed in " +
				"a header; use printable ASCII")
		}
		return nil
	}
}

// WithMetadata sends a key and its value with every call.
func WithMetadata(key, value string) Option {
	return func(s *settings) error {
		if !isPrintable(value) {
			return invalidSettings("the value of %q has characters that are not allowed in a "+
				"header; use printable ASCII", key)
		}
		s.headers[strings.ToLower(key)] = value
		return nil
	}
}

// WithDialOptions adds options of gRPC, such as an interceptor, a stats handler for OpenTelemetry or
// a dialer. They override those of this package.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) error {
		s.dial = append(s.dial, options...)
		return nil
	}
}

func isPrintable(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// headers are sent with every call. gRPC's own credentials for tokens refuse plaintext connections,
// even to this machine.
type headers map[string]string

func (h headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return h, nil
}

func (headers) RequireTransportSecurity() bool { return false }
