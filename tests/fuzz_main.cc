// Runs a fuzz target without libFuzzer: its seeds as they are, then seeded mutations of them. Usage: PROGRAM
// [SEEDS_FOLDER] TH_FUZZ_RUNS sets how many mutations (default 20000), TH_FUZZ_SEED which (default 1).

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/env.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

std::string mutate(std::string text, const std::vector<std::string>& seeds, th::Prng& random) {
  for (uint64_t edits = 1 + random.below(4); edits > 0; --edits) {
    size_t at = random.below(text.size() + 1);
    switch (random.below(5)) {
      case 0:
        text.insert(at, 1, static_cast<char>(random.below(256)));
        break;
      case 1:
        text.erase(at, 1 + random.below(8));
        break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
        break;
      case 3:
        text.insert(at, text.substr(random.below(text.size() + 1), random.below(16)));
        break;
      default: {
        const std::string& other = seeds[random.below(seeds.size())];
        text = text.substr(0, at) + other.substr(random.below(other.size() + 1));
      }
    }
    if (text.size() > 65536) text.resize(65536);
  }
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> seeds = {""};
  if (argc > 1 && std::filesystem::is_directory(argv[1])) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
      std::ifstream file(entry.path(), std::ios::binary);
      seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  const char* runs_text = std::getenv("TH_FUZZ_RUNS");
  long runs = runs_text == nullptr ? 20000 : std::atol(runs_text);
  for (const std::string& seed : seeds) run(seed);
  const char* seed_text = std::getenv("TH_FUZZ_SEED");
  th::Prng random(seed_text == nullptr ? 1 : std::strtoull(seed_text, nullptr, 10));
  for (long i = 0; i < runs; ++i) run(mutate(seeds[random.below(seeds.size())], seeds, random));
  std::printf("%zu seeds and %ld mutations: no fault\n", seeds.size() - 1, runs);
  return 0;
}
