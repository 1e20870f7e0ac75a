#pragma once
// The REST routes (docs/api.md). Handlers of the HTTP server post to the loop; the loop checks the key, runs
// the command, and answers once it is durable.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "control/controller.h"
#include "control/loop.h"
#include "control/sign_in.h"
#include "http/server.h"

namespace th::control {

inline constexpr size_t kMaxBodyBytes = size_t{1} << 20;  // of what people send; nodes may send more

inline constexpr const char* kVersion = "0.1.0";

/// Who may ask a route: the least role in the tenant that the key is of, or in the platform.
struct Need {
  enum class By { kAnyone, kGateway, kRole };
  ledger::Role role = ledger::Role::kNone;
  bool platform = false;
  By by = By::kRole;
};
inline constexpr Need kAnyone{ledger::Role::kNone, false, Need::By::kAnyone};
inline constexpr Need kGateway{ledger::Role::kNone, false, Need::By::kGateway};
inline constexpr Need kViewer{ledger::Role::kViewer};
inline constexpr Need kMember{ledger::Role::kMember};
inline constexpr Need kOperator{ledger::Role::kOperator};
inline constexpr Need kAdmin{ledger::Role::kAdmin};
inline constexpr Need kPlatformViewer{ledger::Role::kViewer, true};
inline constexpr Need kPlatformOperator{ledger::Role::kOperator, true};
inline constexpr Need kPlatformAdmin{ledger::Role::kAdmin, true};

/// What a command answers, as JSON text. `stored`: what a repeat with the same idempotency key gets, where
/// that differs (secrets).
struct Answer {
  explicit Answer(const Json& json, std::optional<std::string> stored_text = {});
  std::string body;
  std::optional<std::string> stored;
  http::Headers headers = {};  // beside the usual ones
  bool ends_keys = false;      // told once the gateways know, as "gateways_told"
};

class ServingLoad;

class SignInRoutes;  // api_signin.cc

class Api {
 public:
  Api(Loop& loop, std::string gateway_token_sha256);
  ~Api();
  http::Router router();

  // From here on: the loop thread only.
  void attach(Controller& controller);
  /// Why commands are refused at the moment; none: they are not.
  void refuse_commands(std::optional<Error> why);
  SignIn& sign_in() { return sign_in_; }
  /// Called for POST /shutdown.
  std::function<void(bool nodes)> on_shutdown;

  /// Ends every event stream.
  void close_streams();

 private:
  using Read = std::function<Result<Json>(Controller&, const http::Request&)>;
  using Write = std::function<Result<Answer>(Controller&, const http::Request&, const Json& body)>;
  using Done = std::function<void(Result<Answer>)>;  // on the loop thread, once
  using LateWrite =
      std::function<void(Controller&, const http::Request&, const Json& body, const Done& done)>;
  using Raw = std::function<void(Controller&, const http::Request&, http::Responder)>;

  void add(http::Router& router, const char* method, const char* pattern, Need need, Raw handler);
  void read(http::Router& router, const char* pattern, Read handler, Need need = kViewer);
  void write(http::Router& router, const char* method, const char* pattern, Need need, Write handler);
  /// A command that answers when it is through.
  void write_late(http::Router& router, const char* method, const char* pattern, Need need,
                  LateWrite handler);
  /// The answer to a question, without what the caller does not see.
  void send(Controller& c, const http::Responder& responder, const Result<Json>& answer);
  void refuse_caller(const http::Request& request, const http::Responder& responder, const Error& error);
  void run_write(const http::Request& request, const http::Responder& responder, const LateWrite& handler);
  /// What came of it: into the audit log, and to who asked. after_seq: of the event before.
  void finish_write(const http::Request& request, const http::Responder& responder,
                    const std::pair<std::string, std::string>& idempotency, int64_t after_seq,
                    Result<Answer> answer);
  void audit(const http::Request& request, const Caller& who, const Status& done, int64_t after_seq);

  void add_fleet_routes(http::Router& router);
  void add_fleet_map_routes(http::Router& router);
  void add_slice_routes(http::Router& router);
  void add_stack_routes(http::Router& router);
  void add_data_routes(http::Router& router);
  void add_job_routes(http::Router& router);
  void add_serving_routes(http::Router& router);
  void add_key_routes(http::Router& router);
  void add_session_routes(http::Router& router);
  void add_people_routes(http::Router& router);
  void add_invitation_routes(http::Router& router);
  void add_audit_routes(http::Router& router);
  void add_sign_in_routes(http::Router& router);
  void add_node_routes(http::Router& router);
  void add_gateway_routes(http::Router& router);
  void add_event_routes(http::Router& router);
  void add_queue_routes(http::Router& router);
  void add_console_routes(http::Router& router);
  void add_contract_routes(http::Router& router);
  void add_exec_routes(http::Router& router);

  friend class SignInRoutes;

  void publish(const ledger::Entry& entry);
  /// Ends the streams of keys that are no longer valid.
  void end_streams_of_revoked();
  void publish_progress(const std::string& job, const StoredLine& line);

  Loop& loop_;
  std::string gateway_token_sha256_;
  Controller* controller_ = nullptr;
  std::optional<Error> refusal_;
  std::unique_ptr<ServingLoad> serving_load_;
  /// An event stream, and whose it is.
  struct Reader {
    http::Stream stream;
    Caller who;
  };
  std::vector<Reader> readers_, followers_;       // of events, of logs
  int64_t strangers_minute_ = 0, strangers_ = 0;  // refusals of who showed no key, in that minute
  SignIn sign_in_;
  std::shared_ptr<SignInRoutes> sign_in_routes_;
};

/// The query parameter `name` as an integer. Errors: kInvalidArgument naming it.
Result<int64_t> query_int(const http::Request& request, const std::string& name, int64_t fallback);
struct Import {
  std::string name;
  std::filesystem::path path;
};
/// {"name","path"}: what a folder of the controller's machine is to be called.
Result<Import> read_import(const Json& body, const char* what);
/// The field `name`, as check_name(…, what) wants it.
Result<std::string> get_name(const Json& body, const char* what);
/// Errors: kInvalidArgument for a field that is not `known`, with the nearest that is, or a body that is no
/// object.
Status check_fields(const Json& body, const std::vector<std::string>& known);

}  // namespace th::control
