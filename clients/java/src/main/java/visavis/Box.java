package visavis;

/**
 * A rectangle in pixels of the upright picture; (0, 0) is its top left corner.
 *
 * @param xMin left edge
 * @param yMin top edge
 * @param xMax right edge
 * @param yMax bottom edge
 */
public record Box(float xMin, float yMin, float xMax, float yMax) {
  /** Returns the width in pixels. */
  public float width() {
    return xMax - xMin;
  }

  /** Returns the height in pixels. */
  public float height() {
    return yMax - yMin;
  }
}
