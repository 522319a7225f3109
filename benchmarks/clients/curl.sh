# curl, as anybody would.
ask() {
  curl --silent --show-error --fail-with-body "$BASE_URL/chat/completions" -H "Authorization: Bearer $API_KEY" \
    -H "Content-Type: application/json" -d "$1"
}
check() {
  if printf '%s' "$2" | grep --quiet "$3"; then
    printf '{"check": "%s"}\n' "$1"
  else
    printf '{"check": "%s", "failed": "the reply lacks what was asked for"}\n' "$1"
  fi
}
BODY='"model": "'$MODEL'", "messages": [{"role": "user", "content": "What is 2 plus 3?"}]'
TOOLS='"tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties":
  {"a": {"type": "integer", "maximum": 99}}, "required": ["a"]}}}, {"type": "function", "function": {"name": "noop"}}]'
check "chat" "$(ask "{$BODY, \"max_tokens\": 20}")" '"finish_reason"'
check "tools, required" "$(ask "{$BODY, $TOOLS, \"tool_choice\": \"required\"}")" '"finish_reason":"tool_calls"'
check "tools, streamed" "$(ask "{$BODY, $TOOLS, \"tool_choice\": \"required\", \"stream\": true}")" '"tool_calls"'
