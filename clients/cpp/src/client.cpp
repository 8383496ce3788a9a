#include "visavis/client.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fstream>
#include <future>
#include <iterator>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "address.h"
#include "image.h"
#include "reading.h"
#include "status.h"
#include "visavis/client/wire.pb.h"
#include "visavis/v1/vision.grpc.pb.h"

namespace visavis {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

constexpr milliseconds kReadyPoll(100);
constexpr int kServing = 1;

// All methods are read-only, so calls that fail as UNAVAILABLE or are cut off are retried, up to
// four attempts within their deadline. RESOURCE_EXHAUSTED is not: the server is overloaded already.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [{"service": "visavis.v1.VisionService"}],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
    },
    "maxResponseMessageBytes": 100663296
  }]
})";

InvalidSettings Unusable(const std::string& message) {
  return {message, {Code::kInvalidArgument, {}, {}, {}}};
}

milliseconds Checked(milliseconds timeout) {
  if (timeout.count() <= 0) {
    throw Unusable("timeout is " + std::to_string(timeout.count()) + " ms; it must be above 0");
  }
  return timeout;
}

std::string ReadPem(const std::string& path) {
  if (path.empty()) return "";
  std::ifstream file(path, std::ios::binary);
  std::string pem{std::istreambuf_iterator<char>(file), {}};
  if (!file) {
    throw Unusable("can't read " + path + ": " + std::generic_category().message(errno));
  }
  return pem;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const std::optional<Tls>& tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  if (tls->certificate.empty() != tls->private_key.empty()) {
    throw Unusable("a client certificate needs its private key; give both or neither");
  }
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ReadPem(tls->root_certificates);
  options.pem_cert_chain = ReadPem(tls->certificate);
  options.pem_private_key = ReadPem(tls->private_key);
  return grpc::SslCredentials(options);
}

// A channel to a server that reconnects whenever its connection breaks.
std::shared_ptr<grpc::Channel> Connect(const std::string& address, bool local,
                                       const std::optional<Tls>& tls) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetServiceConfigJSON(kServiceConfig);
  // gRPC retries only requests that fit into this buffer; the default of 256 KiB is too small.
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kMaxMessageBytes);
  // Detect a dead connection within 80 s, but ping only during calls: servers close connections
  // that ping too often.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  // Reconnect soon after a server starts; by default gRPC waits up to two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  // Connections to this machine bypass http_proxy.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, local ? 0 : 1);
  return grpc::CreateCustomChannel(address, Credentials(tls), arguments);
}

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

// Returns the metadata of every call. Throws InvalidSettings for a token that may not be sent.
Metadata Headers(const std::string& address, bool local, const ClientOptions& options) {
  Metadata headers = options.metadata;
  if (options.token.empty()) return headers;
  if (!options.tls && !local) {
    throw Unusable("the token for " + address + " would be sent in the clear; set options.tls");
  }
  const auto space = [](unsigned char c) { return std::isspace(c) != 0; };
  const auto begin = std::find_if_not(options.token.begin(), options.token.end(), space);
  const auto end = std::find_if_not(options.token.rbegin(), options.token.rend(), space).base();
  const std::string token(begin, std::max(begin, end));
  if (token.empty() || !IsPrintable(token)) {
    throw Unusable(
        "the token is empty or has characters that are not allowed in a header; use printable "
        "ASCII");
  }
  headers.emplace_back("authorization", "Bearer " + token);
  return headers;
}

// gRPC ends the program if a key or a value is not allowed.
void AddMetadata(const Metadata& metadata, grpc::ClientContext* context) {
  for (auto [key, value] : metadata) {
    std::transform(key.begin(), key.end(), key.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    const bool valid =
        !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
          return std::islower(c) || std::isdigit(c) || c == '-' || c == '_' || c == '.';
        });
    if (!valid || !IsPrintable(value)) {
      throw Unusable("metadata \"" + key + "\" has characters that are not allowed in a header");
    }
    context->AddMetadata(key, value);
  }
}

template <typename Request>
void SetExplain(const std::optional<Explain>& explain, Request* request) {
  if (!explain) return;
  v1::Explain* asked = request->mutable_explain();
  if (explain->label) asked->set_label(*explain->label);
}

// Sets what the requests of all detectors have in common.
template <typename Request>
void SetDetectorOptions(const DetectorOptions& options, Request* request) {
  if (options.score_threshold) request->set_score_threshold(*options.score_threshold);
  if (options.iou_threshold) request->set_iou_threshold(*options.iou_threshold);
  if (options.max_detections) request->set_max_detections(*options.max_detections);
  request->mutable_labels()->Assign(options.labels.begin(), options.labels.end());
  request->set_class_agnostic(options.class_agnostic);
  request->set_annotate(options.annotate);
  SetExplain(options.explain, request);
}

// Request: CompareRequest or CompareStreamRequest.
template <typename Request>
Request CompareRequestOf(const v1::Image& image, const CompareOptions& options) {
  Request request;
  *request.mutable_image() = image;
  for (const Task task : options.tasks) request.add_tasks(static_cast<v1::Task>(task));
  request.mutable_models()->Assign(options.models.begin(), options.models.end());
  if (options.baseline) request.set_baseline(*options.baseline);
  if (options.top_k) request.set_top_k(*options.top_k);
  request.set_annotate_difference(options.annotate_difference);
  SetDetectorOptions(options, &request);
  return request;
}

}  // namespace

class Client::Connection {
 public:
  Connection(const std::string& address, const ClientOptions& options)
      : address_(address),
        timeout_(Checked(options.timeout)),
        headers_(Headers(address, IsLocal(address), options)),
        channel_(Connect(address, IsLocal(address), options.tls)),
        vision_(v1::VisionService::NewStub(channel_)) {}

  template <typename Request, typename Response>
  using Method = grpc::Status (v1::VisionService::Stub::*)(grpc::ClientContext*, const Request&,
                                                           Response*);

  template <typename Request, typename Response>
  Response Call(Method<Request, Response> method, const Request& request,
                const CallOptions& options) const {
    const milliseconds timeout = Timeout(options);
    grpc::ClientContext context;
    Prepare(options, system_clock::now() + timeout, &context);
    Response response;
    Check((vision_.get()->*method)(&context, request, &response), address_, timeout);
    return response;
  }

  Comparison Stream(const v1::CompareStreamRequest& request,
                    const std::function<void(const StreamedAnswer&)>& on_answer,
                    const CallOptions& options) const {
    const milliseconds timeout = Timeout(options);
    grpc::ClientContext context;
    Prepare(options, system_clock::now() + timeout, &context);
    const auto reader = vision_->CompareStream(&context, request);
    std::optional<Comparison> comparison;
    v1::CompareStreamResponse event;
    try {
      while (reader->Read(&event)) {
        if (event.has_summary()) comparison = ReadComparison(event.summary());
        const std::optional<Task> task = ReadTask(event.answer().task());
        if (event.has_answer() && task) on_answer({*task, ReadAnswer(event.answer().answer())});
      }
    } catch (...) {
      context.TryCancel();
      reader->Finish();
      throw;
    }
    Check(reader->Finish(), address_, timeout);
    if (!comparison) {
      throw ServerFailed("the stream ended without a summary", {Code::kInternal, {}, {}, {}});
    }
    return *std::move(comparison);
  }

  void WaitUntilReady(const CallOptions& options) const {
    const milliseconds timeout = Timeout(options);
    const auto give_up = system_clock::now() + timeout;
    grpc::TemplatedGenericStub<client::HealthCheckRequest, client::HealthCheckResponse> stub(
        channel_);
    const client::HealthCheckRequest request;
    client::HealthCheckResponse response;
    while (true) {
      grpc::ClientContext context;
      Prepare(options, give_up, &context);
      // If the server is not listening yet, gRPC retries until the deadline.
      context.set_wait_for_ready(true);
      std::promise<grpc::Status> status;
      stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                     [&status](grpc::Status ended) { status.set_value(std::move(ended)); });
      Check(status.get_future().get(), address_, timeout);
      if (response.status() == kServing) return;
      std::this_thread::sleep_for(kReadyPoll);
    }
  }

 private:
  milliseconds Timeout(const CallOptions& options) const {
    return options.timeout ? Checked(*options.timeout) : timeout_;
  }

  void Prepare(const CallOptions& options, system_clock::time_point deadline,
               grpc::ClientContext* context) const {
    context->set_deadline(deadline);
    AddMetadata(headers_, context);
    AddMetadata(options.metadata, context);
  }

  std::string address_;
  milliseconds timeout_;
  Metadata headers_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::VisionService::Stub> vision_;
};

Client::Client(const std::string& address, const ClientOptions& options)
    : connection_(std::make_unique<Connection>(address, options)) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

ClassifyResult Client::Classify(const Image& image, const std::string& model,
                                const ClassifyOptions& options) const {
  v1::ClassifyRequest request;
  *request.mutable_image() = image.content_->message;
  request.set_model(model);
  if (options.version) request.set_version(*options.version);
  if (options.top_k) request.set_top_k(*options.top_k);
  request.set_annotate(options.annotate);
  SetExplain(options.explain, &request);
  return ReadClassifyResult(
      connection_->Call(&v1::VisionService::Stub::Classify, request, options));
}

DetectResult Client::Detect(const Image& image, const std::string& model,
                            const DetectOptions& options) const {
  v1::DetectRequest request;
  *request.mutable_image() = image.content_->message;
  request.set_model(model);
  if (options.version) request.set_version(*options.version);
  SetDetectorOptions(options, &request);
  return ReadDetectResult(connection_->Call(&v1::VisionService::Stub::Detect, request, options));
}

Comparison Client::Compare(const Image& image, const CompareOptions& options) const {
  const auto request = CompareRequestOf<v1::CompareRequest>(image.content_->message, options);
  return ReadComparison(connection_->Call(&v1::VisionService::Stub::Compare, request, options));
}

Comparison Client::CompareStream(const Image& image,
                                 const std::function<void(const StreamedAnswer&)>& on_answer,
                                 const CompareOptions& options) const {
  const auto request = CompareRequestOf<v1::CompareStreamRequest>(image.content_->message, options);
  return connection_->Stream(request, on_answer, options);
}

std::vector<Model> Client::ListModels(const CallOptions& options) const {
  const v1::ListModelsResponse response =
      connection_->Call(&v1::VisionService::Stub::ListModels, v1::ListModelsRequest(), options);
  std::vector<Model> models;
  for (const v1::Model& model : response.models()) models.push_back(ReadModel(model));
  return models;
}

Model Client::GetModel(const std::string& model, int version, const CallOptions& options) const {
  v1::GetModelRequest request;
  request.set_model(model);
  if (version != 0) request.set_version(version);
  return ReadModel(
      connection_->Call(&v1::VisionService::Stub::GetModel, request, options).model());
}

void Client::WaitUntilReady(const CallOptions& options) const {
  connection_->WaitUntilReady(options);
}

}  // namespace visavis
