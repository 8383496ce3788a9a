// Messages of the contract, read into the types of results.h and cards.h.
#pragma once

#include <optional>

#include "visavis/cards.h"
#include "visavis/results.h"
#include "visavis/v1/vision.pb.h"

namespace visavis {

// Absent for a task that is newer than this client.
std::optional<Task> ReadTask(v1::Task task);

ClassifyResult ReadClassifyResult(const v1::ClassifyResponse& message);
DetectResult ReadDetectResult(const v1::DetectResponse& message);
Comparison ReadComparison(const v1::CompareResponse& message);
ModelAnswer ReadAnswer(const v1::ModelAnswer& message);
Model ReadModel(const v1::Model& message);

}  // namespace visavis
