// Serves one model over OpenAI's completion routes.

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "http/server.h"
#include "serve/api.h"
#include "serve/engine.h"
#include "serve/model_folder.h"

namespace {

using namespace th;

constexpr int64_t kGraceNs = 5 * kSecond;
constexpr auto kFlushTime = std::chrono::milliseconds(200);

struct Options {
  std::string model;
  std::string name;
  std::string kv_memory = "256MiB";
  http::ServerOptions server;
  serve::EngineOptions engine;
};

// SIGTERM and SIGINT, taken by a thread of its own: blocked in all others, which inherit the mask.
sigset_t block_end_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

// The kernels' threads must sleep between steps and not spin: other programs run on this machine, and each
// turn of a spinning thread is one that they, or this program's own threads, wait for. OpenMP reads its
// policy before main().
void sleep_between_steps(char** argv) {
  if (getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);  // where that fails it only is slower
}

Status serve_model(const Options& options, const sigset_t& signals) {
  // Loading cannot be interrupted, and has nothing to lose.
  std::atomic<bool> loading = true;
  std::atomic<bool> end = false;
  std::thread([&loading, &end, signals] {
    int signal_number = 0;
    sigwait(&signals, &signal_number);
    if (loading) _exit(0);
    end = true;
    end.notify_all();
  }).detach();

  serve::Api api(options.name);
  TH_TRY(auto server, http::Server::start(options.server, api.router()));
  TH_TRY(auto model, serve::load_model_folder(options.model));
  TH_TRY(auto engine, serve::Engine::start(options.engine, model));
  const int64_t context = engine->context_tokens();
  api.ready(std::move(model), std::move(engine));
  loading = false;
  std::printf("th-serve: %s is ready at http://%s:%d (context %lld tokens)\n", options.name.c_str(),
              options.server.address.c_str(), server->port(), static_cast<long long>(context));
  std::fflush(stdout);

  end.wait(false);
  log_info("ending: requests under way have {} to finish", format_duration(kGraceNs));
  api.drain(kGraceNs);
  std::this_thread::sleep_for(kFlushTime);  // the server's threads still send the last words
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  sleep_between_steps(argv);
  Options options;
  CLI::App app("Serves a Hugging Face model folder over OpenAI's /v1/completions and /v1/chat/completions.");
  app.add_option("--model", options.model, "folder with config.json, tokenizer.json and model.safetensors")
      ->required();
  app.add_option("--name", options.name, "name of the model in requests and answers")->required();
  app.add_option("--address", options.server.address, "address to listen on")->capture_default_str();
  app.add_option("--port", options.server.port, "port to listen on; 0: any free one")->capture_default_str();
  app.add_option("--max-batch", options.engine.max_batch, "sequences in one step")->capture_default_str();
  app.add_option("--kv-memory", options.kv_memory, "memory of the KV cache, as 512MiB")
      ->capture_default_str();
  app.add_option("--threads", options.engine.threads, "threads of the kernels; 0: OMP_NUM_THREADS")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  options.server.threads = 2;
  options.server.error_form = serve::refusal_response;

  init_log("th-serve");
  const Result<int64_t> kv_memory_bytes = parse_bytes(options.kv_memory);
  if (!kv_memory_bytes) {
    log_error("--kv-memory: {}", kv_memory_bytes.error().message);
    return 2;
  }
  options.engine.kv_memory_bytes = *kv_memory_bytes;
  if (const Status status = check_name(options.name, "--name"); !status) {
    log_error("{}", status.error().message);
    return 2;
  }
  const sigset_t signals = block_end_signals();
  if (const Status status = serve_model(options, signals); !status) {
    log_error("{}", status.error().message);
    // The thread that waits for signals still refers to this frame.
    std::fflush(nullptr);
    _exit(1);
  }
  return 0;
}
