module github.com/restsend/rustpbxgo

go 1.23.0

require github.com/gorilla/websocket v1.5.3
