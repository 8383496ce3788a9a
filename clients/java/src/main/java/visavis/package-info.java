/**
 * Calls a visavis server, which runs vision models on pictures and compares their answers.
 *
 * <pre>{@code
 * try (var client = VisavisClient.connect("127.0.0.1:8001")) {
 *   var result = client.detect(Picture.file(Path.of("bus.jpg")), "yolov5n");
 *   for (Detection found : result.detections()) {
 *     System.out.println(found.label() + " " + found.score() + " " + found.box());
 *   }
 * }
 * }</pre>
 *
 * <p>{@link visavis.VisavisClient} makes the calls, and {@link visavis.VisavisException} is what they
 * throw. Records gain components when the server's contract does: read them through their accessors.
 */
package visavis;
