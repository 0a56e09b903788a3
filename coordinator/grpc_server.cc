// SPDX-License-Identifier: Apache-2.0

#include "coordinator/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/security/server_credentials.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/check.h"
#include "common/status.h"
#include "coordinator/connection_gate.h"
#include "coordinator/http2_opening.h"
#include "coordinator/service_util.h"

namespace ft {
namespace {

constexpr int kQuotaBytes = 64 << 20;
// Of what gRPC serves with a thread a call: reflection.
constexpr int kMaxThreads = 16;
constexpr int kMaxMessageBytes = 4 << 20;

absl::StatusOr<Principal> AuthenticateAndCount(
    const TokenTable& tokens, std::optional<absl::string_view> authorization,
    const std::function<void(absl::string_view)>& on_denied) {
  absl::StatusOr<Principal> caller = Authenticate(tokens, authorization);
  if (!caller.ok()) {
    on_denied(authorization.has_value() ? "bad_token" : "no_token");
  }
  return caller;
}

// Looks at every call before anything else does: health, reflection and
// unknown methods too. The gate has looked at a connection's first one only.
class TokenCheck final : public grpc::AuthMetadataProcessor {
 public:
  TokenCheck(std::shared_ptr<const TokenTable> tokens,
             std::function<void(absl::string_view)> on_denied)
      : tokens_(std::move(tokens)), on_denied_(std::move(on_denied)) {}

  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext*,
                       OutputMetadata*, OutputMetadata*) override {
    const auto path = metadata.find(":path");
    if (path == metadata.end()) {
      return {grpc::StatusCode::INTERNAL, "a call without a path"};
    }
    const absl::StatusOr<Principal> caller =
        AuthenticateAndCount(*tokens_, AuthorizationOf(metadata), on_denied_);
    if (!caller.ok()) {
      return {grpc::StatusCode::UNAUTHENTICATED,
              std::string(caller.status().message())};
    }
    const std::string method(path->second.data(), path->second.size());
    if (const absl::Status right = CheckAccess(caller->role, method);
        !right.ok()) {
      on_denied_("role");
      return {grpc::StatusCode::PERMISSION_DENIED,
              std::string(right.message())};
    }
    return grpc::Status::OK;
  }

 private:
  const std::shared_ptr<const TokenTable> tokens_;
  const std::function<void(absl::string_view)> on_denied_;
};

void EnablePlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

void SetLimits(grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("ft");
  quota.Resize(kQuotaBytes);
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // A small message may not become a large one: nothing is decompressed.
  builder.SetDefaultCompressionAlgorithm(GRPC_COMPRESS_NONE);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE,
                             static_cast<int>(kMaxMetadataBytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             static_cast<int>(kMaxConcurrentStreams));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 5 * 60 * 1000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Our clients ping each 10 s; the default would call that abuse.
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
}

}  // namespace

struct GrpcServer::Impl {
  GrpcServerOptions options;
  std::string address;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<ConnectionGate> gate;  // Before the server goes.

  // Gives a connection, and what came over it, to the server.
  void Admit(UniqueFd connection, const std::string& bytes) {
    const grpc::Slice slice(bytes);
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters
        parameters;
    parameters.fd = connection.Release();
    parameters.read_buffer = grpc::ByteBuffer(&slice, 1);
    acceptor->HandleNewConnection(&parameters);
  }
};

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(
    GrpcServerOptions options) {
  FT_ASSIGN_OR_RETURN(const HostPort wanted,
                      ParseLoopbackAddress(options.address));
  EnablePlugins();
  grpc::ServerBuilder builder;
  SetLimits(builder);
  auto credentials = grpc::experimental::LocalServerCredentials(LOCAL_TCP);
  credentials->SetAuthMetadataProcessor(
      std::make_shared<TokenCheck>(options.tokens, options.on_denied));
  auto impl = std::make_unique<Impl>();
  impl->acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      credentials);
  for (const std::shared_ptr<grpc::Service>& service : options.services) {
    builder.RegisterService(service.get());
  }
  impl->options = std::move(options);
  impl->server = builder.BuildAndStart();
  FT_CHECK(impl->server != nullptr);  // It binds nothing.

  ConnectionGateOptions gate{.host = wanted.host, .port = wanted.port};
  gate.check = [self = impl.get()](const auto& authorization) {
    return AuthenticateAndCount(*self->options.tokens, authorization,
                                self->options.on_denied)
        .status();
  };
  gate.admit = [self = impl.get()](UniqueFd connection, std::string bytes) {
    self->Admit(std::move(connection), bytes);
  };
  gate.on_ended = impl->options.on_denied;
  absl::StatusOr<std::unique_ptr<ConnectionGate>> opened =
      ConnectionGate::Open(std::move(gate));
  if (!opened.ok()) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", impl->options.address, ": ",
                     opened.status().message(),
                     "; is the port taken? Choose another, or 0"));
  }
  impl->gate = *std::move(opened);
  impl->address = FormatAddress(wanted.host, impl->gate->port());
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(impl)));
}

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

const std::string& GrpcServer::address() const { return impl_->address; }

void GrpcServer::SetServing(bool is_ready, bool is_live) {
  grpc::HealthCheckServiceInterface* health =
      impl_->server->GetHealthCheckService();
  if (health == nullptr) return;
  health->SetServingStatus(is_ready);
  health->SetServingStatus("ft.readiness", is_ready);
  health->SetServingStatus("ft.liveness", is_live);
}

void GrpcServer::Shutdown(absl::Duration grace) {
  impl_->gate.reset();
  impl_->server->Shutdown(absl::ToChronoTime(absl::Now() + grace));
}

}  // namespace ft
