package visavis;

import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import visavis.VisavisException.InvalidSettings;

/** Checks addresses: HOST:PORT, unix:PATH, or a target of gRPC such as dns:///HOST:PORT. */
final class Addresses {
  private static final Pattern TARGET = Pattern.compile("(dns|xds):.*");
  private static final Pattern HOST_PORT =
      Pattern.compile("(?<host>\\[[^]]+]|[^:/\\s]+):(?<port>\\d{1,5})");
  private static final Pattern LOOPBACK =
      Pattern.compile("localhost|127(\\.\\d{1,3}){3}|\\[(::1|0*(:0*){6}:0*1)]");

  private Addresses() {}

  /** Returns whether an address is on this machine. Throws InvalidSettings if it is no address. */
  static boolean isLocal(String address) {
    if (address.startsWith("unix:")) {
      return true;
    }
    if (TARGET.matcher(address).matches()) {
      return false;
    }
    if (address.contains("://")) {
      throw new InvalidSettings(
          "address \"" + address + "\" is a URL; write HOST:PORT or unix:PATH");
    }
    Matcher parts = HOST_PORT.matcher(address);
    int port = parts.matches() ? Integer.parseInt(parts.group("port")) : 0;
    if (port < 1 || port > 65535) {
      throw new InvalidSettings("invalid address \"" + address + "\"; write HOST:PORT, such as "
          + VisavisClient.DEFAULT_ADDRESS + ", or unix:PATH");
    }
    return LOOPBACK.matcher(parts.group("host")).matches();
  }

  /** Returns the socket at an address; empty if it is none of a path. */
  static Optional<SocketAddress> unixSocket(String address) {
    if (!address.startsWith("unix:")) {
      return Optional.empty();
    }
    String path = address.substring("unix:".length());
    return Optional.of(UnixDomainSocketAddress.of(
        path.startsWith("///") ? path.substring("//".length()) : path));
  }
}
