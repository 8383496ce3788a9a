package visavis;

import io.netty.buffer.ByteBuf;
import io.netty.channel.ChannelConfig;
import io.netty.channel.ChannelException;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelOption;
import io.netty.channel.DefaultChannelConfig;
import io.netty.channel.FileRegion;
import io.netty.channel.nio.AbstractNioByteChannel;
import java.io.IOException;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.nio.channels.SelectionKey;
import java.nio.channels.SocketChannel;

/**
 * A connection to a unix socket, with Java's own channel. Netty's need a native library for each
 * platform, or versions from 4.2.
 */
final class UnixSocketChannel extends AbstractNioByteChannel {
  private final ChannelConfig config = new DefaultChannelConfig(this) {
    @Override
    public <T> boolean setOption(ChannelOption<T> option, T value) {
      // gRPC sets it for every kind of connection, and Netty would log a warning.
      return option == ChannelOption.SO_KEEPALIVE || super.setOption(option, value);
    }
  };

  UnixSocketChannel() {
    super(null, open());
  }

  private static SocketChannel open() {
    try {
      return SocketChannel.open(StandardProtocolFamily.UNIX);
    } catch (IOException error) {
      throw new ChannelException("can't open a unix socket", error);
    }
  }

  @Override
  public ChannelConfig config() {
    return config;
  }

  @Override
  public boolean isActive() {
    return javaChannel().isOpen() && javaChannel().isConnected();
  }

  @Override
  protected SocketChannel javaChannel() {
    return (SocketChannel) super.javaChannel();
  }

  @Override
  protected boolean doConnect(SocketAddress remote, SocketAddress local) throws Exception {
    boolean connected = false;
    try {
      connected = javaChannel().connect(remote);
      if (!connected) {
        selectionKey().interestOps(SelectionKey.OP_CONNECT);
      }
      return connected;
    } catch (IOException error) {
      doClose();
      throw error;
    }
  }

  @Override
  protected void doFinishConnect() throws Exception {
    if (!javaChannel().finishConnect()) {
      throw new IllegalStateException("not connected yet");
    }
  }

  @Override
  protected int doReadBytes(ByteBuf buffer) throws Exception {
    var handle = unsafe().recvBufAllocHandle();
    handle.attemptedBytesRead(buffer.writableBytes());
    return buffer.writeBytes(javaChannel(), handle.attemptedBytesRead());
  }

  @Override
  protected int doWriteBytes(ByteBuf buffer) throws Exception {
    return buffer.readBytes(javaChannel(), buffer.readableBytes());
  }

  @Override
  protected long doWriteFileRegion(FileRegion region) throws Exception {
    return region.transferTo(javaChannel(), region.transferred());
  }

  @Override
  protected ChannelFuture shutdownInput() {
    return newFailedFuture(new UnsupportedOperationException());
  }

  @Override
  protected SocketAddress localAddress0() {
    return address(true);
  }

  @Override
  protected SocketAddress remoteAddress0() {
    return address(false);
  }

  private SocketAddress address(boolean local) {
    try {
      return local ? javaChannel().getLocalAddress() : javaChannel().getRemoteAddress();
    } catch (IOException error) {
      return null;
    }
  }

  @Override
  protected void doBind(SocketAddress local) {
    throw new UnsupportedOperationException();
  }

  @Override
  protected void doDisconnect() throws Exception {
    doClose();
  }

  @Override
  protected void doClose() throws Exception {
    super.doClose();
    javaChannel().close();
  }
}
