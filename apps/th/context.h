#pragma once
// What every verb of th gets: where the controller is, and how to speak to the person.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace CLI {
class App;
}

namespace th::http {
struct Call;
}

namespace th::cli {

/// Exit statuses (docs/cli.md). A verb that waits for a job ends with the job's.
enum Exit { kOk = 0, kFailed = 1, kUsage = 2, kUnreachable = 3, kInterrupted = 130 };

class Context {
 public:
  // From the global options and the environment.
  std::filesystem::path state;
  std::string url_option;
  std::string key_option;
  std::string authority_option;
  bool json = false;
  std::vector<std::string> command;  // what stood after "--"

  int exit_status = kOk;  // of a verb that succeeded

  /// A line for the person: stdout, or stderr when stdout is for JSON.
  void say(std::string_view text) const;
  /// The same without a line end, at once.
  void put(std::string_view text) const;

  /// --url, TH_URL, STATE/controld.json, else the default port.
  std::string url() const;
  std::string gateway_url() const;
  /// --key, TH_KEY, else STATE/admin.key. Errors: kUnauthenticated, saying where a key was looked for.
  Result<std::string> key() const;

  /// PEM of --ca, TH_CA, else STATE/authority.pem: for http::Call, as are all calls of the daemons. Empty:
  /// those that the system trusts.
  std::string authority_pem() const;

  // REST under /api/v1; `path` begins with '/'. Writes carry an idempotency key and are repeated when the
  // connection is lost. Errors: the controller's, or kUnavailable naming the URL and what to do.
  Result<Json> get(const std::string& path) const;
  Result<Json> post(const std::string& path, const Json& body) const;
  Result<Json> patch(const std::string& path, const Json& body) const;
  Result<Json> del(const std::string& path) const;
  /// A request with the key, to be sent by other means. Errors: no key.
  Result<http::Call> call(std::string method, const std::string& path) const;
  /// For who has none yet.
  Result<Json> post_without_key(const std::string& path, const Json& body) const;
};

/// A verb: prints for the person, returns what --json prints.
using Verb = std::function<Result<Json>(Context&)>;

// Each group adds its verbs to `app`; the one that was asked for sets `verb`.
void add_up(CLI::App& app, Verb& verb);
void add_fleet(CLI::App& app, Verb& verb);
void add_slice(CLI::App& app, Verb& verb);
void add_queue(CLI::App& app, Verb& verb);
void add_stack(CLI::App& app, Verb& verb);
void add_submit(CLI::App& app, Verb& verb);
void add_launch(CLI::App& app, Verb& verb);
void add_job(CLI::App& app, Verb& verb);
void add_exec(CLI::App& app, Verb& verb);
void add_sbatch(CLI::App& app, Verb& verb);
void add_slurm(CLI::App& app, Verb& verb);
void add_slurm_power(CLI::App& app, Verb& verb);
void add_deploy(CLI::App& app, Verb& verb);
void add_model(CLI::App& app, Verb& verb);
void add_data(CLI::App& app, Verb& verb);
void add_chat(CLI::App& app, Verb& verb);
void add_key(CLI::App& app, Verb& verb);
void add_access(CLI::App& app, Verb& verb);
void add_demo(CLI::App& app, Verb& verb);

// Fields of the controller's answers: what is missing or of another type reads as empty.
std::string text_of(const Json& object, const char* field);
int64_t int_of(const Json& object, const char* field);
double double_of(const Json& object, const char* field);
/// The list under `field`, else an empty one.
const Json& list_of(const Json& object, const char* field = "items");
const Json& object_of(const Json& object, const char* field);
std::vector<std::string> strings_of(const Json& object, const char* field);

/// A controller's error passed on with `what` in front.
tl::unexpected<Error> fail_with(std::string_view what, Error error);

}  // namespace th::cli
