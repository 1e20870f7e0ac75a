#include "command.h"

#include <CLI/CLI.hpp>

namespace th {

void Flags::add(const char* name, std::string& value, const char* help) {
  app_.add_option(name, value, help)->capture_default_str();
}
void Flags::add(const char* name, int64_t& value, const char* help) {
  app_.add_option(name, value, help)->capture_default_str();
}
void Flags::add(const char* name, double& value, const char* help) {
  app_.add_option(name, value, help)->capture_default_str();
}
void Flags::add(const char* name, bool& value, const char* help) { app_.add_flag(name, value, help); }
void Flags::choice(const char* name, std::string& value, const std::vector<std::string>& choices,
                   const char* help) {
  app_.add_option(name, value, help)->check(CLI::IsMember(choices))->capture_default_str();
}
void Flags::required(const char* name, std::string& value, const char* help) {
  app_.add_option(name, value, help)->required();
}

}  // namespace th
