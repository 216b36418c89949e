#include "json.hpp"

#include <cmath>
#include <cstdlib>


namespace adc {

namespace {

constexpr int kMaxDepth = 64;

class Parser {
 public:
  Parser(const unsigned char* data, std::size_t size, const std::string& where)
      : at_(data), end_(data + size), where_(where) {}

  Json document() {
    Json value = any(0);
    blank();
    if (at_ != end_) bad("text after the document");
    return value;
  }

 private:
  [[noreturn]] void bad(const char* why) const { fail(where_ + ": not valid JSON: " + why); }

  void blank() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }
  bool next(char c) {
    blank();
    if (at_ == end_ || *at_ != static_cast<unsigned char>(c)) return false;
    ++at_;
    return true;
  }
  bool word(const char* text) {
    const std::size_t n = std::strlen(text);
    if (static_cast<std::size_t>(end_ - at_) < n || std::memcmp(at_, text, n) != 0) return false;
    at_ += n;
    return true;
  }

  Json any(int depth) {
    if (depth > kMaxDepth) bad("nested too deeply");
    blank();
    if (at_ == end_) bad("it ends too early");
    Json value;
    switch (*at_) {
      case '{':
        object(value, depth);
        break;
      case '[':
        list(value, depth);
        break;
      case '"':
        value.kind = Json::Kind::text;
        value.text = text();
        break;
      default:
        if (word("null")) break;
        if (word("true")) {
          value.kind = Json::Kind::boolean;
          value.boolean = true;
        } else if (word("false")) {
          value.kind = Json::Kind::boolean;
        } else {
          number(value);
        }
    }
    return value;
  }

  void object(Json& value, int depth) {
    value.kind = Json::Kind::object;
    ++at_;
    if (next('}')) return;
    do {
      blank();
      if (at_ == end_ || *at_ != '"') bad("a key is missing");
      std::string key = text();
      if (!next(':')) bad("a colon is missing");
      value.members.emplace_back(std::move(key), any(depth + 1));
    } while (next(','));
    if (!next('}')) bad("an object is not closed");
    std::vector<const std::string*> keys;
    for (const auto& member : value.members) keys.push_back(&member.first);
    const auto less = [](const std::string* a, const std::string* b) { return *a < *b; };
    std::sort(keys.begin(), keys.end(), less);
    for (std::size_t i = 1; i < keys.size(); ++i) {
      if (*keys[i - 1] == *keys[i]) bad("a key appears twice");
    }
  }

  void list(Json& value, int depth) {
    value.kind = Json::Kind::list;
    ++at_;
    if (next(']')) return;
    do {
      value.items.push_back(any(depth + 1));
    } while (next(','));
    if (!next(']')) bad("a list is not closed");
  }

  void number(Json& value) {
    std::string digits;
    while (at_ != end_ && (std::strchr("+-.eE", *at_) != nullptr || (*at_ >= '0' && *at_ <= '9')) &&
           *at_ != 0) {
      digits += static_cast<char>(*at_++);
      if (digits.size() > 64) bad("a number is too long");
    }
    char* stop = nullptr;
    value.kind = Json::Kind::number;
    value.number = std::strtod(digits.c_str(), &stop);
    if (digits.empty() || *stop != '\0' || !std::isfinite(value.number)) bad("a broken value");
  }

  unsigned hex4() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i) {
      if (at_ == end_) bad("a broken escape");
      const unsigned char c = *at_++;
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) bad("a broken escape");
      code = code * 16 + static_cast<unsigned>(digit);
    }
    return code;
  }

  static void append_utf8(std::string& out, unsigned code) {
    const auto put = [&out](unsigned byte) { out += static_cast<char>(byte); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | code >> 6);
      put(0x80 | (code & 63));
    } else if (code < 0x10000) {
      put(0xe0 | code >> 12);
      put(0x80 | (code >> 6 & 63));
      put(0x80 | (code & 63));
    } else {
      put(0xf0 | code >> 18);
      put(0x80 | (code >> 12 & 63));
      put(0x80 | (code >> 6 & 63));
      put(0x80 | (code & 63));
    }
  }

  void escape(std::string& out) {
    if (at_ == end_) bad("a broken escape");
    constexpr const char* kFrom = "\"\\/bfnrt";
    constexpr const char* kTo = "\"\\/\b\f\n\r\t";
    const unsigned char c = *at_++;
    if (c == 'u') {
      unsigned code = hex4();
      if (code >= 0xd800 && code < 0xdc00 && word("\\u")) {
        const unsigned low = hex4();
        if (low < 0xdc00 || low > 0xdfff) bad("a broken escape");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      }
      append_utf8(out, code);
      return;
    }
    const char* found = c == 0 ? nullptr : std::strchr(kFrom, c);
    if (found == nullptr) bad("an unknown escape");
    out += kTo[found - kFrom];
  }

  std::string text() {
    std::string out;
    ++at_;
    while (true) {
      if (at_ == end_) bad("a text is not closed");
      const unsigned char c = *at_++;
      if (c == '"') return out;
      if (c < 0x20) bad("a control character");
      if (c == '\\') {
        escape(out);
      } else {
        out += static_cast<char>(c);
      }
    }
  }

  const unsigned char* at_;
  const unsigned char* end_;
  const std::string& where_;
};

}  // namespace

const Json* Json::find(const std::string& name) const {
  for (const auto& member : members) {
    if (member.first == name) return &member.second;
  }
  return nullptr;
}

Json parse_json(const unsigned char* data, std::size_t size, const std::string& where) {
  return Parser(data, size, where).document();
}

const Json& Json::at(const std::string& name, Kind wanted, const std::string& where) const {
  const Json* found = find(name);
  if (found == nullptr || found->kind != wanted) {
    fail(where + ": '" + name + "' is missing or of the wrong kind");
  }
  return *found;
}

}  // namespace adc
