"""Settings of the suite's ensembles."""

CONFIG = """
http_addr = "127.0.0.1:0"
media_cache_path = "FOLDER/mediacache"

[ua]
addr = "127.0.0.1"
udp_port = 0
useragent = "conformance/1"
accept_timeout = "25s"

[ua.handler]
type = "webhook"
url = "WEBHOOK"
method = "POST"
headers = [["X-Conformance", "yes"]]
timeout = "3s"

[callrecord]
type = "local"
root = "FOLDER/cdr"

[providers]
asr = { tencent = "whisper" }
tts = { tencent = "piper" }
speakers = { "601003" = "" }
"""
"""RustPBX's layout, short times, and the other names that the Go SDK's example sends."""

FLAT = """
http_addr = "127.0.0.1:0"
addr = "127.0.0.1"
udp_port = 0
useragent = "flat/1"
accept_timeout = "30s"
external_ip = "127.0.0.1"
rtp_bind_ip = "127.0.0.1"
rtp_start_port = 21000
rtp_end_port = 21999
codecs = ["pcma", "pcmu", "dtmf"]
media_cache_path = "FOLDER/mediacache"
recorder_path = "FOLDER/ignored"

[handler]
type = "webhook"
urls = ["WEBHOOK/one", "WEBHOOK/two"]
method = "PUT"
timeout = "3s"
headers = { X-Table = "yes" }

[recording]
enabled = true
auto_start = true
samplerate = 8000

[[register_users]]
server = "REGISTRAR"
username = "7301"
display_name = "Front desk"
credential = { username = "7301", password = "s3cr3t", realm = "registrar" }

[[register_users]]
server = "REGISTRAR"
username = "nobody"
disabled = true
credential = { username = "nobody", password = "x" }

[callrecord]
type = "http"
url = "RECORDS"
with_media = true
headers = { X-Record = "yes" }

[[ice_servers]]
urls = ["stun:127.0.0.1:9"]

[[ice_servers]]
urls = "turn:127.0.0.1:9"
username = "u"
credential = "p"
"""
"""The flat layout, with every table that the other one lacks."""

BARE = """
http_addr = "127.0.0.1:0"
media_cache_path = "FOLDER/mediacache"
llmproxy = "LLM"

[ua]
addr = "127.0.0.1"
udp_port = 0
"""
"""No handler, nothing about ICE."""
