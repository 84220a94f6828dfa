"""A server that speaks vLLM's protocol as far as a run uses it, with a tiny model behind it: python stub_vllm.py MODEL PORT_FILE.
It stands in for vLLM where that cannot run, and is no sampler of ours. POST /fault makes it misbehave."""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
SOURCE = sys.argv[1]
LOCK = threading.Lock()
STATE: dict[str, Any] = {"model": AutoModelForCausalLM.from_pretrained(SOURCE), "adapters": {}, "fault": "", "key": ""}
TOKENIZER = AutoTokenizer.from_pretrained(SOURCE)
SEEN: list[tuple[str, Any]] = []


class Refused(Exception):
    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@torch.no_grad()
def complete(asked: dict[str, Any]) -> dict[str, Any]:
    name, fault = asked["model"], STATE["fault"]
    model = STATE["adapters"].get(name, STATE["model"])
    if name not in (SOURCE, *STATE["adapters"]):
        raise Refused(404, f"The model `{name}` does not exist.")
    choices = []
    for k in range(asked["n"] - (fault == "one answer less")):
        make = torch.Generator().manual_seed(asked["seed"] + k)
        ids, logp = [], []
        while len(ids) < asked["max_tokens"]:
            z = model(torch.tensor([[*asked["prompt"], *ids]])).logits[0, -1].double()
            hot = asked["temperature"]
            token = int(z.argmax() if hot == 0 else torch.multinomial((z / hot).softmax(-1), 1, generator=make))
            ids.append(token)
            logp.append(float((z / (0.2 if fault == "processed log-probs" else 1)).log_softmax(-1)[token]))
            if token in asked["stop_token_ids"]:
                break
        stopped = ids[-1] in asked["stop_token_ids"]
        if fault == "a token too large":
            ids[0] = 10**6
        if fault == "no end":
            ids, logp, stopped = ids[:1], logp[:1], False
        one = {
            "index": k,
            "text": TOKENIZER.decode(ids),
            "finish_reason": "stop" if stopped else "length",
            "stop_reason": ids[-1] if stopped else None,
            "logprobs": {"token_logprobs": logp[:-1] if fault == "a log-prob less" else logp},
            "token_ids": ids,
            "prompt_token_ids": asked["prompt"][1:] if fault == "another prompt" else asked["prompt"],
        }
        choices.append({name: x for name, x in one.items() if fault != "no ids" or "token_ids" not in name})
    answered = "another/model" if fault == "another model" else name
    return {"id": "cmpl-1", "object": "text_completion", "model": answered, "choices": choices}


def answer(path: str, asked: Any) -> Any:
    fault = STATE["fault"]
    if path == "/v1/models":
        names = [] if fault == "no model" else [(SOURCE, None), *((name, SOURCE) for name in STATE["adapters"])]
        return {"data": [{"id": name, "root": name, "parent": parent, "max_model_len": 512} for name, parent in names]}
    if path == "/tokenize":
        tokens = TOKENIZER(asked["prompt"], add_special_tokens=False)["input_ids"]
        return {"tokens": tokens[1:] if fault == "another tokenizer" else tokens}
    if path == "/v1/completions":
        if fault == "no JSON":
            return "surprise"
        return complete(asked)
    if path == "/collective_rpc":
        if fault == "no development mode":
            raise Refused(404, "Not Found")
        if fault != "weights not taken":
            assert asked["method"] == "reload_weights" and asked["kwargs"]["is_checkpoint_format"] is True
            STATE["model"] = AutoModelForCausalLM.from_pretrained(asked["kwargs"]["weights_path"])
        return {"results": [None]}
    if path == "/reset_prefix_cache":
        return {"success": fault != "cache in use"}
    if path == "/v1/load_lora_adapter":
        if fault == "no adapters":
            raise Refused(404, "Not Found")
        base = AutoModelForCausalLM.from_pretrained(SOURCE)
        STATE["adapters"][asked["lora_name"]] = PeftModel.from_pretrained(base, asked["lora_path"])
        return f"Success: LoRA adapter '{asked['lora_name']}' added successfully."
    if path == "/v1/unload_lora_adapter":
        del STATE["adapters"][asked["lora_name"]]
        return f"Success: LoRA adapter '{asked['lora_name']}' removed successfully."
    raise Refused(404, "Not Found")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked: Any = json.loads(body) if body else None
        if self.path == "/fault":
            STATE.update(asked)
            SEEN.clear()
            return self.say(200, {})
        if self.path == "/seen":
            return self.say(200, SEEN)
        SEEN.append((self.path, asked))
        key = STATE["key"]
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            return self.say(401, {"error": "Unauthorized"})
        if STATE["fault"] == "an error" and self.path == "/v1/completions":
            sent = self.headers.get("Authorization", "")
            return self.say(500, {"error": {"message": f"CUDA out of memory\n\x1b[31m {sent}", "code": 500}})
        if STATE["fault"] == "silence" and self.path == "/v1/completions":
            time.sleep(2)  # longer than is waited for; nobody else waits with it
            return None
        if STATE["fault"] == "elsewhere":
            self.send_response(307)
            self.send_header("Location", "/v1/models")
            self.end_headers()
            return None
        try:
            with LOCK:
                said = answer(self.path, asked)
        except Refused as refused:
            return self.say(refused.status, {"error": {"message": str(refused), "code": refused.status}})
        return self.say(200, said)

    def say(self, status: int, value: Any) -> None:
        data = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Path(sys.argv[2] + ".draft").write_text(str(server.server_port))
    Path(sys.argv[2] + ".draft").rename(sys.argv[2])
    server.serve_forever()
