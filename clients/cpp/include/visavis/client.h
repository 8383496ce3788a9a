/// \file
/// The client of a visavis server, which runs vision models on pictures and compares their answers.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "visavis/cards.h"
#include "visavis/errors.h"
#include "visavis/image.h"
#include "visavis/options.h"
#include "visavis/results.h"

namespace visavis {

/// Where a server listens unless its settings say otherwise.
inline constexpr char kDefaultAddress[] = "127.0.0.1:8001";

/// A connection to one server, which is opened by the first call and again whenever it breaks.
///
/// Its methods may be called from several threads, which share the connection. Every call throws a
/// subclass of Error if it fails. Calls that fail because no server answers, or because they are cut
/// off on the way, are tried up to four times within their timeout: every method only reads. An
/// overloaded server is not asked again.
class Client {
 public:
  /// address: HOST:PORT, unix:PATH, or a target of gRPC such as dns:///HOST:PORT. Throws
  /// InvalidSettings; does not connect yet.
  explicit Client(const std::string& address = kDefaultAddress, const ClientOptions& options = {});
  ~Client();
  /// Takes over the connection; the other client can then only be destroyed or assigned to.
  Client(Client&&) noexcept;
  /// Takes over the connection, and closes the former one.
  Client& operator=(Client&&) noexcept;

  /// One model's labels for the whole picture, highest score first.
  ClassifyResult Classify(const Image& image, const std::string& model,
                          const ClassifyOptions& options = {}) const;

  /// The objects that one model finds in the picture, highest score first.
  DetectResult Detect(const Image& image, const std::string& model,
                      const DetectOptions& options = {}) const;

  /// The answers of all capable models for one picture, side by side.
  Comparison Compare(const Image& image, const CompareOptions& options = {}) const;

  /// Like Compare, but calls on_answer with each model's answer as soon as it arrives, in this
  /// thread. The timeout covers the whole stream. An exception of on_answer cancels the rest.
  Comparison CompareStream(const Image& image,
                           const std::function<void(const StreamedAnswer&)>& on_answer,
                           const CompareOptions& options = {}) const;

  /// The cards of all models, ordered by name, without labels and receipts.
  std::vector<Model> ListModels(const CallOptions& options = {}) const;

  /// One model's card, with its labels and its receipt. version: 0 for the highest.
  Model GetModel(const std::string& model, int version = 0, const CallOptions& options = {}) const;

  /// Returns once the server has loaded its models. Throws DeadlineExceeded if the timeout ends.
  void WaitUntilReady(const CallOptions& options = {}) const;

 private:
  class Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace visavis
