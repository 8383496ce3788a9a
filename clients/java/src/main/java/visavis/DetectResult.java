package visavis;

import java.util.List;
import java.util.Optional;

/**
 * The objects that one model found.
 *
 * @param detections objects, highest score first
 * @param servedBy the model that answered
 * @param timings time spent in each stage
 * @param imageSize size of the upright picture, in whose pixels the boxes are
 * @param annotatedImage the drawn picture, if it was asked for
 * @param heatMap the heat map, if it was asked for
 */
public record DetectResult(
    List<Detection> detections, ServedBy servedBy, Timings timings, ImageSize imageSize,
    Optional<AnnotatedImage> annotatedImage, Optional<HeatMap> heatMap) {}
