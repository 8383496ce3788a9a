package visavis;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.netty.NettyChannelBuilder;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.util.concurrent.DefaultThreadFactory;
import java.net.SocketAddress;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** Opens channels: limits, retries, keepalive. */
final class Connections {
  /**
   * The largest message. Larger than the usual server limit of 32 MiB, so that the server decides what
   * is too large; gRPC's default for responses is 4 MiB.
   */
  static final int MAX_MESSAGE_BYTES = 96 << 20;

  /**
   * All methods are read-only, so calls that fail as UNAVAILABLE or are cut off are retried, up to
   * four attempts within their deadline. RESOURCE_EXHAUSTED is not: the server is overloaded.
   */
  private static final Map<String, ?> SERVICE_CONFIG = Map.of(
      "methodConfig", List.of(Map.of(
          "name", List.of(Map.of("service", "visavis.v1.VisionService")),
          "maxResponseMessageBytes", (double) MAX_MESSAGE_BYTES,
          "retryPolicy", Map.of(
              "maxAttempts", 4.0,
              "initialBackoff", "0.1s",
              "maxBackoff", "1s",
              "backoffMultiplier", 2.0,
              "retryableStatusCodes", List.of("UNAVAILABLE", "CANCELLED")))));

  private Connections() {}

  /** A channel, and how to close it. */
  record Connection(ManagedChannel channel, Runnable close) {}

  /** Returns a channel that connects with its first call, and again whenever it breaks. */
  static Connection open(String address, boolean local, ChannelCredentials credentials) {
    Optional<SocketAddress> socket = Addresses.unixSocket(address);
    if (socket.isEmpty()) {
      var builder = Grpc.newChannelBuilder(address, credentials);
      if (local) {
        builder.proxyDetector(target -> null);
      }
      ManagedChannel channel = configured(builder).build();
      return new Connection(channel, channel::shutdownNow);
    }
    EventLoopGroup loops =
        new NioEventLoopGroup(1, new DefaultThreadFactory("visavis-unix-socket", true));
    var builder = NettyChannelBuilder.forAddress(socket.get(), credentials)
        .eventLoopGroup(loops)
        .channelFactory(UnixSocketChannel::new)
        .overrideAuthority("localhost");
    ManagedChannel channel = configured(builder).build();
    return new Connection(channel, () -> {
      channel.shutdownNow();
      loops.shutdownGracefully(0, 1, SECONDS);
    });
  }

  private static ManagedChannelBuilder<?> configured(ManagedChannelBuilder<?> builder) {
    return builder
        .maxInboundMessageSize(MAX_MESSAGE_BYTES)
        .defaultServiceConfig(SERVICE_CONFIG)
        .enableRetry()
        // gRPC retries only requests that fit into this buffer; the default is 1 MiB.
        .perRpcBufferLimit(MAX_MESSAGE_BYTES)
        .retryBufferSize(2L * MAX_MESSAGE_BYTES)
        // Detect a dead connection within 80 s, but ping only during calls: servers close
        // connections that ping too often.
        .keepAliveTime(60, SECONDS)
        .keepAliveTimeout(20, SECONDS);
  }
}
