package visavis;

import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.InsecureChannelCredentials;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import visavis.VisavisException.InvalidSettings;

/** Builds a {@link VisavisClient}. */
public final class ClientBuilder {
  final String address;
  final List<ClientInterceptor> interceptors = new ArrayList<>();
  Duration timeout = VisavisClient.DEFAULT_TIMEOUT;
  private final Map<String, String> metadata = new TreeMap<>();
  private String token;
  private boolean tls;
  private Path rootCertificates;
  private Path certificate;
  private Path privateKey;

  ClientBuilder(String address) {
    this.address = Objects.requireNonNull(address);
  }

  /** Sets the timeout of calls that set none. It covers the whole call, retries included. */
  public ClientBuilder timeout(Duration timeout) {
    this.timeout = VisavisClient.checked(timeout);
    return this;
  }

  /** Encrypts the connection, trusting the authorities that Java trusts. */
  public ClientBuilder tls() {
    this.tls = true;
    return this;
  }

  /**
   * Encrypts the connection, trusting only these authorities.
   *
   * @param rootCertificates a PEM file
   */
  public ClientBuilder tls(Path rootCertificates) {
    this.tls = true;
    this.rootCertificates = Objects.requireNonNull(rootCertificates);
    return this;
  }

  /**
   * Encrypts the connection and authenticates the client, for servers with mutual TLS.
   *
   * @param certificate a PEM file
   * @param privateKey a PEM file in PKCS #8, which begins with BEGIN PRIVATE KEY
   */
  public ClientBuilder clientCertificate(Path certificate, Path privateKey) {
    this.tls = true;
    this.certificate = Objects.requireNonNull(certificate);
    this.privateKey = Objects.requireNonNull(privateKey);
    return this;
  }

  /** Sends a bearer token with every call. Without TLS, only to servers on this machine. */
  public ClientBuilder token(String token) {
    this.token = token.strip();
    if (this.token.isEmpty() || !this.token.chars().allMatch(c -> c >= ' ' && c <= '~')) {
      throw new InvalidSettings("the token is empty or has characters that are not allowed in a "
          + "header; use printable ASCII");
    }
    return this;
  }

  /** Sends a key and its value with every call. */
  public ClientBuilder metadata(String key, String value) {
    metadata.put(Objects.requireNonNull(key), Objects.requireNonNull(value));
    return this;
  }

  /** Adds interceptors of gRPC, such as OpenTelemetry's. */
  public ClientBuilder interceptors(ClientInterceptor... interceptors) {
    Collections.addAll(this.interceptors, interceptors);
    return this;
  }

  /**
   * Returns the client, which connects with its first call.
   *
   * @throws InvalidSettings if the address or a TLS file is unusable, or the token would be sent in
   *     the clear
   */
  public VisavisClient build() {
    return new VisavisClient(this);
  }

  Map<String, String> headers(boolean local) {
    if (token == null) {
      return metadata;
    }
    if (!tls && !local) {
      throw new InvalidSettings(
          "the token for " + address + " would be sent in the clear; call tls()");
    }
    Map<String, String> headers = new TreeMap<>(metadata);
    headers.put("authorization", "Bearer " + token);
    return headers;
  }

  ChannelCredentials credentials() {
    if (!tls) {
      return InsecureChannelCredentials.create();
    }
    try {
      var credentials = TlsChannelCredentials.newBuilder();
      if (rootCertificates != null) {
        credentials.trustManager(rootCertificates.toFile());
      }
      if (certificate != null) {
        credentials.keyManager(certificate.toFile(), privateKey.toFile());
      }
      return credentials.build();
    } catch (IOException error) {
      throw new InvalidSettings("can't read a TLS file: " + error.getMessage());
    }
  }
}
