package visavis;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import visavis.VisavisException.FieldViolation;
import visavis.VisavisException.InvalidRequest;
import visavis.v1.Vision.Image;
import visavis.v1.Vision.RawImage;

/**
 * A picture to send. Prefer the file itself to decoded pixels: other decoders round differently from
 * the server's.
 */
public final class Picture {
  /** Leaves room for the rest of the request. */
  private static final int MAX_BYTES = Connections.MAX_MESSAGE_BYTES - (64 << 10);

  final Image message;

  private Picture(Image message) {
    this.message = message;
  }

  /**
   * Reads a JPEG, PNG or WebP file.
   *
   * @throws IOException if the file can't be read
   * @throws InvalidRequest if it is empty or too large
   */
  public static Picture file(Path path) throws IOException {
    return encoded(Files.readAllBytes(path));
  }

  /**
   * Returns the picture in the content of a JPEG, PNG or WebP file, which must not change afterwards.
   *
   * @throws InvalidRequest if it is empty or too large
   */
  public static Picture encoded(byte[] content) {
    return new Picture(Image.newBuilder().setEncoded(checked(content)).build());
  }

  /**
   * Returns the picture of decoded pixels in upright orientation, top row first.
   *
   * @param pixels must not change afterwards
   * @throws InvalidRequest if there are no pixels or too many
   */
  public static Picture raw(PixelFormat format, int width, int height, byte[] pixels) {
    RawImage raw = RawImage.newBuilder()
        .setFormat(format.value).setWidth(width).setHeight(height).setData(checked(pixels)).build();
    return new Picture(Image.newBuilder().setRaw(raw).build());
  }

  /** Returns the picture of an upright image in memory. Its alpha channel is dropped. */
  public static Picture decoded(BufferedImage image) {
    int width = image.getWidth();
    int height = image.getHeight();
    byte[] pixels = new byte[3 * width * height];
    int next = 0;
    for (int argb : image.getRGB(0, 0, width, height, null, 0, width)) {
      pixels[next++] = (byte) (argb >> 16);
      pixels[next++] = (byte) (argb >> 8);
      pixels[next++] = (byte) argb;
    }
    return raw(PixelFormat.RGB, width, height, pixels);
  }

  private static ByteString checked(byte[] bytes) {
    if (bytes.length == 0) {
      throw invalid("image is empty");
    }
    if (bytes.length > MAX_BYTES) {
      throw invalid("image is " + bytes.length + " bytes; the limit is " + MAX_BYTES);
    }
    return UnsafeByteOperations.unsafeWrap(bytes);
  }

  private static InvalidRequest invalid(String message) {
    return new InvalidRequest(Details.of(message, List.of(new FieldViolation("image", message))));
  }
}
