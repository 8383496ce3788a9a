package visavis;

import static visavis.Reading.number;

import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import visavis.v1.Vision;

/** Reads models' cards. */
final class CardReading {
  private CardReading() {}

  static Model model(Vision.Model message) {
    Vision.LabelSet labels = message.getLabelSet();
    Vision.ModelInput input = message.getInput();
    Vision.Verification verification = message.getVerification();
    return new Model(
        message.getName(),
        message.getVersion(),
        message.getVersionsList(),
        message.getTasksList().stream().flatMap(task -> Reading.task(task).stream()).toList(),
        message.getPrecision(),
        message.getVariantOf(),
        message.getExecutionProvider(),
        message.getRandomWeights(),
        facts(message.getFacts()),
        new Model.LabelSet(labels.getName(), labels.getSize(), labels.getLabelsList()),
        new Model.Input(input.getWidth(), input.getHeight(), input.getResize()),
        message.hasDetectionDefaults()
            ? Optional.of(defaults(message.getDetectionDefaults())) : Optional.empty(),
        provenance(message.getProvenance()),
        new Model.Verification(verification.getDigest(), verification.getGoldenSample()),
        message.hasReceipt() ? Optional.of(receipt(message.getReceipt())) : Optional.empty(),
        message.hasAccuracy() ? Optional.of(accuracy(message.getAccuracy())) : Optional.empty());
  }

  private static Model.Facts facts(Vision.ModelFacts message) {
    return new Model.Facts(
        message.getArchitecture(),
        message.getOrganization(),
        message.getCategory(),
        message.getModality(),
        message.getReleaseDate(),
        message.hasContextWindow()
            ? OptionalInt.of(message.getContextWindow()) : OptionalInt.empty(),
        message.getParameterCount(),
        message.getCodeLicense(),
        message.getWeightsLicense(),
        message.hasRealTime() ? Optional.of(message.getRealTime()) : Optional.empty(),
        Map.copyOf(message.getSourcesMap()));
  }

  private static Model.DetectionDefaults defaults(Vision.DetectionDefaults message) {
    return new Model.DetectionDefaults(
        message.getScoreThreshold(), message.getIouThreshold(), message.getMaxDetections());
  }

  private static Model.Provenance provenance(Vision.Provenance message) {
    return new Model.Provenance(
        message.getWeightsSource(), message.getWeightsSha256(), message.getExporter(),
        message.getExportedAt(), Map.copyOf(message.getLibrariesMap()), message.getConversion());
  }

  private static Model.Receipt receipt(Vision.Receipt message) {
    Vision.RowComparison rows = message.getRows();
    return new Model.Receipt(
        message.getMadeAt(),
        message.getScoreTolerance(),
        message.getBoxTolerancePx(),
        message.getHeatMapTolerance(),
        message.getMaxScoreDifference(),
        number(message.hasMaxBoxDifferencePx(), message.getMaxBoxDifferencePx()),
        number(message.hasMaxHeatMapDifference(), message.getMaxHeatMapDifference()),
        message.hasRows()
            ? Optional.of(new Model.RowComparison(
                rows.getCount(), rows.getMaxScoreDifference(), rows.getMaxBoxDifferencePx()))
            : Optional.empty(),
        message.getPicturesList().stream().map(CardReading::picture).toList());
  }

  private static Model.ReceiptPicture picture(Vision.ReceiptPicture message) {
    return new Model.ReceiptPicture(
        message.getName(),
        message.getWidth(),
        message.getHeight(),
        number(message.hasScoreThreshold(), message.getScoreThreshold()),
        message.getCompared(),
        message.getExcused(),
        message.getMaxScoreDifference(),
        number(message.hasMaxBoxDifferencePx(), message.getMaxBoxDifferencePx()),
        number(message.hasMaxHeatMapDifference(), message.getMaxHeatMapDifference()),
        message.hasSameTop1() ? Optional.of(message.getSameTop1()) : Optional.empty(),
        message.getOnlyHere(),
        message.getOnlyInOriginal());
  }

  private static Model.Accuracy accuracy(Vision.Accuracy message) {
    return new Model.Accuracy(
        message.getMetric(), message.getValue(), message.getOriginal(), message.getPictures(),
        message.getSource(), message.getHeldOut(), message.getError());
  }
}
