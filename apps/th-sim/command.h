#pragma once
// A command of th-sim: its flags, what it runs, and the object that it answers with. main.cc lists them all.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace CLI {
class App;
}

namespace th {

/// Declares flags of one command; each is written into the variable given, which is its default too.
class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(app) {}
  void add(const char* name, std::string& value, const char* help);
  void add(const char* name, int64_t& value, const char* help);
  void add(const char* name, double& value, const char* help);
  void add(const char* name, bool& value, const char* help);  // a switch without a value
  void choice(const char* name, std::string& value, const std::vector<std::string>& choices,
              const char* help);
  void required(const char* name, std::string& value, const char* help);

 private:
  CLI::App& app_;
};

/// What every command has.
struct Common {
  int64_t seed = 1;
  std::string report;  // --report FILE: one self-contained HTML page; empty: none
};

class Command {
 public:
  virtual ~Command() = default;
  virtual const char* name() const = 0;
  virtual const char* help() const = 0;
  virtual const char* example() const = 0;  // "th-sim openb --nodes ... --json"
  virtual void add_flags(Flags& flags) = 0;
  /// One object; "simulated": true is added by main. Progress goes to stderr. Errors: kInvalidArgument and
  /// kNotFound end th-sim with 2, others with 1. A result that shows a fault of the product (chaos
  /// violations) sets `failed`, which ends it with 1.
  virtual Result<Json> run(const Common& common, bool& failed) = 0;
};

// One a file of this folder.
std::unique_ptr<Command> make_muri_command();
std::unique_ptr<Command> make_itp_command();
std::unique_ptr<Command> make_philly_command();
std::unique_ptr<Command> make_swf_command();
std::unique_ptr<Command> make_openb_command();
std::unique_ptr<Command> make_chaos_command();
std::unique_ptr<Command> make_llama3_command();
std::unique_ptr<Command> make_optimal_command();
std::unique_ptr<Command> make_place_command();
std::unique_ptr<Command> make_power_command();
std::unique_ptr<Command> make_serve_command();

}  // namespace th
