// schema-check: validates JSON values against JSON schemas with valijson. stdin has one {"schema":…,"value":…} a
// line, stdout gets one line a line: "" or what is wrong. --components FILE: a JSON object that schemas refer to
// as "#/components/…".

#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

namespace {

using nlohmann::json;
using valijson::adapters::NlohmannJsonAdapter;

std::unique_ptr<valijson::Schema> parse(const json& components, const json& schema) {
  auto out = std::make_unique<valijson::Schema>();
  const json root = {{"components", components}, {"allOf", {schema}}};
  valijson::SchemaParser(valijson::SchemaParser::kDraft7).populateSchema(NlohmannJsonAdapter(root), *out);
  return out;
}

std::string problems_of(const valijson::Schema& schema, const json& value) {
  valijson::Validator validator(valijson::Validator::kStrongTypes);
  valijson::ValidationResults results;
  if (validator.validate(schema, NlohmannJsonAdapter(value), &results)) return "";
  std::string out;
  valijson::ValidationResults::Error error;
  while (results.popError(error)) {
    std::string where;
    for (const std::string& part : error.context) where += part;
    out += where + ": " + error.description + "; ";
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    json components = json::object();
    if (argc == 3 && std::string(argv[1]) == "--components") components = json::parse(std::ifstream(argv[2]));
    std::map<std::string, std::unique_ptr<valijson::Schema>> known;
    for (std::string line; std::getline(std::cin, line);) {
      const json asked = json::parse(line);
      auto& schema = known[asked.at("schema").dump()];
      if (!schema) schema = parse(components, asked.at("schema"));
      std::cout << problems_of(*schema, asked.at("value")) << std::endl;
    }
  } catch (const std::exception& e) {
    std::cerr << "schema-check: " << e.what() << "\n";
    return 1;
  }
}
