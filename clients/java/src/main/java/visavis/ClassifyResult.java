package visavis;

import java.util.List;
import java.util.Optional;

/**
 * One model's labels for the whole picture.
 *
 * @param classifications labels, highest score first
 * @param servedBy the model that answered
 * @param timings time spent in each stage
 * @param imageSize size of the upright picture
 * @param annotatedImage the drawn picture, if it was asked for
 * @param heatMap the heat map, if it was asked for
 */
public record ClassifyResult(
    List<Classification> classifications, ServedBy servedBy, Timings timings, ImageSize imageSize,
    Optional<AnnotatedImage> annotatedImage, Optional<HeatMap> heatMap) {}
