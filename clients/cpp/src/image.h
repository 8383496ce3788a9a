#pragma once

#include "visavis/image.h"
#include "visavis/v1/vision.pb.h"

namespace visavis {

// The largest message, larger than the usual server limit of 32 MiB, so that the server decides what
// is too large. gRPC's default for responses is 4 MiB.
constexpr int kMaxMessageBytes = 96 << 20;

struct Image::Content {
  v1::Image message;
};

}  // namespace visavis
