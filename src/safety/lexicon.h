#pragma once
// The filter's words. A phrase is lower case; a space stands for one to three spaces or punctuation marks,
// "(a|b)" and "x?" mean what they do in a regular expression, and nothing else does: so the longest text that
// a phrase matches is known.

#include <span>

#include "safety/content_filter.h"

namespace th::safety {

struct LexiconEntry {
  Category category;
  Severity severity;
  const char* phrase;
};

std::span<const LexiconEntry> lexicon();

}  // namespace th::safety
