package visavis;

/**
 * A file with the answer drawn on the picture, which the server shrinks to its limit.
 *
 * @param encoded content of the file
 * @param mediaType such as image/jpeg
 * @param size size of the drawn picture
 */
public record AnnotatedImage(byte[] encoded, String mediaType, ImageSize size) {}
