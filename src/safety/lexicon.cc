#include "safety/lexicon.h"

namespace th::safety {

namespace {

using enum Category;
using enum Severity;

// Low: words that also stand in scripture, history and the news. Medium: phrases that seldom have an innocent
// reading. High: incitement, instructions for harm, and sexual content about children.
constexpr LexiconEntry kLexicon[] = {
    {kHate, kLow, "(racists?|racism|bigots?|nazis?|neo nazis?)"},
    {kHate, kLow, "i hate (women|men|foreigners|immigrants|gays?)"},
    {kHate, kMedium, "(niggers?|kikes?|faggots?|wetbacks?|towelheads?|trann(y|ies))"},
    {kHate, kMedium, "(heil|sieg) (hitler|heil)"},
    {kHate, kMedium, "white (power|supremacy) (now|forever)"},
    {kHate, kMedium, "(jews|muslims|blacks|gays|immigrants) are (vermin|subhuman|animals|parasites)"},
    {kHate, kMedium, "(women|blacks|jews|muslims) are inferior"},
    {kHate, kHigh, "(kill|gas|exterminate) all (the )?(jews|muslims|blacks|whites|gays)"},
    {kHate, kHigh, "death to (all )?(the )?(jews|muslims|blacks|whites|gays)"},

    {kSelfHarm, kLow, "(suicide|suicidal|self harm)"},
    {kSelfHarm, kMedium, "(kill|hang|cut|hurt|starve) yourself"},
    {kSelfHarm, kMedium, "(want|going|plan|decided) to (kill|hang|cut|harm|hurt) (myself|me)"},
    {kSelfHarm, kMedium, "(want|going|plan|decided) to (end my life|commit suicide)"},
    {kSelfHarm, kMedium, "you should (die|kill yourself|end your life)"},
    {kSelfHarm, kHigh, "how to (commit suicide|kill myself|hang myself|cut myself)"},
    {kSelfHarm, kHigh, "(painless|best|easiest) way to (die|kill myself)"},
    {kSelfHarm, kHigh, "lethal (dose|overdose) (for|of) (me|myself|suicide)"},

    {kSexual, kLow, "(sex|sexual|sexually|nude|erotic|whores?|harlots?)"},
    {kSexual, kMedium, "(porn|porno|pornography|pornographic|hentai)"},
    {kSexual, kMedium, "(blowjobs?|handjobs?|cumshots?|gangbangs?|dildos?)"},
    {kSexual, kMedium, "(explicit|hardcore|graphic) sex( scene)?"},
    {kSexual, kMedium, "(fuck|fucking) (me|her|him) (hard|now|harder)"},
    {kSexual, kHigh, "(child|kiddie|underage|preteen) (porn|pornography|sex|nudes)"},
    {kSexual, kHigh, "sex with (a |an )?(child|children|minor|minors|underage)"},
    {kSexual, kHigh, "(rape|molest) (a |the )?(child|children|girl|boy)"},

    {kViolence, kLow, "(kill|killed|killing|kills|slay|slain|slew|murder|murdered|murders)"},
    {kViolence, kLow, "(behead|beheaded|stab|stabbed|massacre|torture|tortured|smite|smote)"},
    {kViolence, kMedium, "(slit|cut) (his|her|their|your) throats?"},
    {kViolence, kMedium, "(gouge|rip|tear) out (his|her|their|your) (eyes|guts|intestines)"},
    {kViolence, kMedium, "(beat|bludgeon|stab|torture) (him|her|them) to death"},
    {kViolence, kMedium, "(dismember|disembowel) (him|her|them|you)"},
    {kViolence, kMedium, "(going|want) to (shoot|stab|murder) (him|her|them|you|people)"},
    {kViolence, kHigh, "how to (make|build) (a |an )?(pipe |nail |car |dirty )?bombs?"},
    {kViolence, kHigh, "how to (make|build) (a |an )?(explosives?|molotov cocktail)"},
    {kViolence, kHigh, "how to (make|produce|synthesize) (sarin|ricin|nerve gas|mustard gas)"},
    {kViolence, kHigh, "(plan|planning|carry out) (a |the )?(school|mass) shooting"},
    {kViolence, kHigh, "how to (murder|kill) (a person|someone|somebody|people|my wife|my husband)"},
};

}  // namespace

std::span<const LexiconEntry> lexicon() { return kLexicon; }

}  // namespace th::safety
