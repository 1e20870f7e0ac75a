"""Load on an OpenAI-compatible completion route: N clients at once, streaming. Prints one JSON object."""

import argparse
import http.client
import json
import statistics
import threading
import time
import urllib.parse


def percentile(values, share):
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def stream_completion(options, number):
    """One request: (seconds to the first text, seconds between texts, completion tokens)."""
    url = urllib.parse.urlparse(options.url)
    connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = connect(url.netloc, timeout=options.timeout)
    body = {"prompt": options.prompt, "max_tokens": options.max_tokens, "temperature": 0.8, "seed": number,
            "stream": True, "stream_options": {"include_usage": True}}
    headers = {"Content-Type": "application/json"}
    if options.model:
        body["model"] = options.model
    if options.key:
        headers["Authorization"] = "Bearer " + options.key
    begin = last = time.monotonic()
    first, gaps, tokens, done = None, [], 0, False
    connection.request("POST", url.path.rstrip("/") + "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status} {response.read(300).decode('utf-8', 'replace')}")
    for line in response:
        if not line.startswith(b"data: "):
            continue
        data = line[6:].strip()
        if data == b"[DONE]":
            done = True
            break
        chunk = json.loads(data)
        if "error" in chunk:
            raise RuntimeError(chunk["error"]["message"])
        if chunk.get("usage"):
            tokens = chunk["usage"]["completion_tokens"]
        if chunk["choices"] and chunk["choices"][0]["text"]:
            now = time.monotonic()
            if first is None:
                first = now - begin
            else:
                gaps.append(now - last)
            last = now
    connection.close()
    if not done:
        raise RuntimeError("the stream ended without [DONE]")
    return first, gaps, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="up to /v1, as http://127.0.0.1:8001")
    parser.add_argument("--model")
    parser.add_argument("--key", help="bearer key, for a gateway")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--prompt", default="In the beginning")
    parser.add_argument("--timeout", type=float, default=120)
    options = parser.parse_args()

    lock = threading.Lock()
    numbers = iter(range(options.requests))
    firsts, gaps, errors, tokens = [], [], [], 0

    def client():
        nonlocal tokens
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                first, own_gaps, own_tokens = stream_completion(options, number)
            except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
                with lock:
                    errors.append(str(error))
                continue
            with lock:
                tokens += own_tokens
                gaps.extend(own_gaps)
                if first is not None:
                    firsts.append(first)

    begin = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin

    def ms(value):
        return None if value is None else round(1000 * value, 2)

    print(json.dumps({
        "clients": options.clients, "requests": options.requests, "errors": len(errors),
        "first_error": errors[0] if errors else None, "seconds": round(seconds, 3), "completion_tokens": tokens,
        "tokens_per_s": round(tokens / seconds, 1),
        "ttft_ms": {"p50": ms(percentile(firsts, 50)), "p99": ms(percentile(firsts, 99)),
                    "mean": ms(statistics.fmean(firsts)) if firsts else None},
        "gap_ms": {"p50": ms(percentile(gaps, 50)), "p99": ms(percentile(gaps, 99))}}))
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
