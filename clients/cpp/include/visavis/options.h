#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "visavis/cards.h"

namespace visavis {

/// Keys and values that are sent with a call. The server logs a call under its "x-request-id".
using Metadata = std::vector<std::pair<std::string, std::string>>;

/// The certificates of an encrypted connection: paths of PEM files, or empty.
struct Tls {
  /// Authorities that sign server certificates. Empty: gRPC's built-in ones.
  std::string root_certificates;
  /// The client's own certificate, for servers that require one; needs private_key.
  std::string certificate;
  /// The private key of certificate.
  std::string private_key;
};

/// Settings of a Client.
struct ClientOptions {
  /// Timeout of calls that set none. Covers the whole call, retries included.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  /// Encrypts the connection. Absent: plaintext.
  std::optional<Tls> tls;
  /// Bearer token, sent with every call. Without TLS, only to servers on this machine.
  std::string token;
  /// Sent with every call.
  Metadata metadata;
};

/// What every call takes.
struct CallOptions {
  /// Absent: the client's.
  std::optional<std::chrono::milliseconds> timeout;
  /// Sent in addition to the client's.
  Metadata metadata;
};

/// Asks for a heat map: how much each part of the picture speaks for a label. A model that can't
/// give one refuses.
struct Explain {
  /// Must be one of the model's labels. Absent: the best.
  std::optional<std::string> label;
};

/// Options of Client::Classify. The server chooses the value of any that is absent.
struct ClassifyOptions : CallOptions {
  /// Version of the model, 1 or above. Absent: the highest.
  std::optional<int> version;
  /// Number of labels, 1 or above.
  std::optional<int> top_k;
  /// True to receive the picture with the labels drawn on it.
  bool annotate = false;
  /// Asks for a heat map. Absent: none.
  std::optional<Explain> explain;
};

/// Options of the detectors.
struct DetectorOptions : CallOptions {
  /// Detections with a score above this are returned. Range [0, 1].
  std::optional<float> score_threshold;
  /// The lower-scored of two boxes whose IoU exceeds this is dropped. Range [0, 1].
  std::optional<float> iou_threshold;
  /// Range [1, 1000].
  std::optional<int> max_detections;
  /// Labels to keep. Empty: all.
  std::vector<std::string> labels;
  /// True to let boxes of different labels suppress each other.
  bool class_agnostic = false;
  /// True to receive the picture with the boxes drawn on it.
  bool annotate = false;
  /// Asks for a heat map, of each answer. Absent: none.
  std::optional<Explain> explain;
};

/// Options of Client::Detect.
struct DetectOptions : DetectorOptions {
  /// Version of the model, 1 or above. Absent: the highest.
  std::optional<int> version;
};

/// Options of Client::Compare and Client::CompareStream.
struct CompareOptions : DetectorOptions {
  /// Tasks to compare. Empty: all.
  std::vector<Task> tasks;
  /// Models to compare. Empty: all capable ones.
  std::vector<std::string> models;
  /// Name of the model that the others are compared with. Absent: the server's choice.
  std::optional<std::string> baseline;
  /// Number of labels of each classifier, 1 or above.
  std::optional<int> top_k;
  /// True to receive the answers drawn side by side, as with annotate, with the boxes in three
  /// colours: in both answers, only here, only in the baseline.
  bool annotate_difference = false;
};

}  // namespace visavis
