// Package rustpbxgo stands in for the Go SDK of that name where its module can't be had. It was written from the
// protocol's description for the program beside it: the same calls, and events bound as strictly: a member of the wrong
// type loses the whole event, which here is reported as an event "discarded".
package rustpbxgo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gorilla/websocket"
)

type (
	IncomingEvent struct {
		TrackID   string `json:"trackId"`
		Timestamp uint64 `json:"timestamp"`
		Caller    string `json:"caller"`
		Callee    string `json:"callee"`
		Sdp       string `json:"sdp"`
	}
	AnswerEvent struct {
		TrackID   string `json:"trackId"`
		Timestamp uint64 `json:"timestamp"`
		Sdp       string `json:"sdp"`
		Refer     bool   `json:"refer"`
	}
	RejectEvent struct {
		TrackID   string `json:"trackId"`
		Timestamp uint64 `json:"timestamp"`
		Reason    string `json:"reason"`
		Code      uint32 `json:"code"`
		Refer     bool   `json:"refer"`
	}
	RingingEvent struct {
		TrackID    string `json:"trackId"`
		Timestamp  uint64 `json:"timestamp"`
		EarlyMedia bool   `json:"earlyMedia"`
		Refer      bool   `json:"refer"`
	}
	HangupEventAttendee struct {
		Username string `json:"username"`
		Realm    string `json:"realm"`
		Source   string `json:"source"`
	}
	HangupEvent struct {
		Timestamp   uint64               `json:"timestamp"`
		Reason      string               `json:"reason"`
		Initiator   string               `json:"initiator"`
		StartTime   string               `json:"startTime"`
		HangupTime  string               `json:"hangupTime"`
		AnswerTime  *string              `json:"answerTime,omitempty"`
		RingingTime *string              `json:"ringingTime,omitempty"`
		From        *HangupEventAttendee `json:"from,omitempty"`
		To          *HangupEventAttendee `json:"to,omitempty"`
		Extra       map[string]any       `json:"extra,omitempty"`
		Refer       bool                 `json:"refer"`
	}
	SpeakingEvent struct {
		TrackID   string `json:"trackId"`
		Timestamp uint64 `json:"timestamp"`
		StartTime uint64 `json:"startTime"`
	}
	SilenceEvent struct {
		TrackID   string `json:"trackId"`
		Timestamp uint64 `json:"timestamp"`
		StartTime uint64 `json:"startTime"`
		Duration  uint64 `json:"duration"`
	}
	DTMFEvent struct {
		TrackID   string `json:"trackId"`
		Timestamp uint64 `json:"timestamp"`
		Digit     string `json:"digit"`
	}
	TrackStartEvent struct {
		TrackID   string  `json:"trackId"`
		Timestamp uint64  `json:"timestamp"`
		PlayId    *string `json:"playId,omitempty"`
	}
	TrackEndEvent struct {
		TrackID   string  `json:"trackId"`
		Timestamp uint64  `json:"timestamp"`
		Duration  uint64  `json:"duration"`
		PlayId    *string `json:"playId,omitempty"`
	}
	InterruptionEvent struct {
		TrackID       string  `json:"trackId"`
		Timestamp     uint64  `json:"timestamp"`
		PlayID        *string `json:"playId,omitempty"`
		Subtitle      *string `json:"subtitle,omitempty"`
		Position      *uint32 `json:"position,omitempty"`
		TotalDuration uint32  `json:"totalDuration"`
		Current       uint32  `json:"current"`
	}
	AsrFinalEvent struct {
		TrackID   string  `json:"trackId"`
		Timestamp uint64  `json:"timestamp"`
		Index     uint32  `json:"index"`
		StartTime *uint64 `json:"startTime,omitempty"`
		EndTime   *uint64 `json:"endTime,omitempty"`
		Text      string  `json:"text"`
	}
	AsrDeltaEvent AsrFinalEvent
	MetricsEvent  struct {
		Timestamp uint64         `json:"timestamp"`
		Key       string         `json:"key"`
		Duration  uint32         `json:"duration"`
		Data      map[string]any `json:"data"`
	}
	ErrorEvent struct {
		TrackID   string  `json:"trackId"`
		Timestamp uint64  `json:"timestamp"`
		Sender    string  `json:"sender"`
		Error     string  `json:"error"`
		Code      *uint32 `json:"code,omitempty"`
	}
	AddHistoryEvent struct {
		Sender    string `json:"sender"`
		Timestamp uint64 `json:"timestamp"`
		Speaker   string `json:"speaker"`
		Text      string `json:"text"`
	}
	PingEvent struct {
		Timestamp uint64 `json:"timestamp"`
		Payload   string `json:"payload,omitempty"`
	}
)

type (
	RecorderOption struct {
		Samplerate int `json:"samplerate,omitempty"`
	}
	VADOption struct {
		Type           string `json:"type,omitempty"`
		SilenceTimeout uint   `json:"silenceTimeout,omitempty"`
	}
	ASROption struct {
		Provider   string `json:"provider,omitempty"`
		SampleRate uint32 `json:"sampleRate,omitempty"`
	}
	TTSOption struct {
		Provider           string `json:"provider,omitempty"`
		Speaker            string `json:"speaker,omitempty"`
		MaxConcurrentTasks int32  `json:"maxConcurrentTasks,omitempty"`
	}
	SipOption struct {
		Username string `json:"username,omitempty"`
		Password string `json:"password,omitempty"`
	}
	ReferOption struct{}
	CallOption  struct {
		Denoise  bool            `json:"denoise,omitempty"`
		Offer    string          `json:"offer,omitempty"`
		Callee   string          `json:"callee,omitempty"`
		Caller   string          `json:"caller,omitempty"`
		Recorder *RecorderOption `json:"recorder,omitempty"`
		VAD      *VADOption      `json:"vad,omitempty"`
		ASR      *ASROption      `json:"asr,omitempty"`
		TTS      *TTSOption      `json:"tts,omitempty"`
		Sip      *SipOption      `json:"sip,omitempty"`
	}
)

// Client is one session.
type Client struct {
	endpoint, id   string
	dump           bool
	ctx            context.Context
	connection     *websocket.Conn
	commands       chan any
	answers        chan any
	OnClose        func(reason string)
	OnEvent        func(event string, payload string)
	OnIncoming     func(IncomingEvent)
	OnRinging      func(RingingEvent)
	OnReject       func(RejectEvent)
	OnHangup       func(HangupEvent)
	OnTrackStart   func(TrackStartEvent)
	OnTrackEnd     func(TrackEndEvent)
	OnInterruption func(InterruptionEvent)
	OnDTMF         func(DTMFEvent)
	OnMetrics      func(MetricsEvent)
	OnAddHistory   func(AddHistoryEvent)
	OnSilence      func(SilenceEvent)
	OnError        func(ErrorEvent)
	OnPing         func(PingEvent)
	OnSpeaking     func(SpeakingEvent)
	OnAsrDelta     func(AsrDeltaEvent)
	OnAsrFinal     func(AsrFinalEvent)
}

type ClientOption func(*Client)

func WithContext(ctx context.Context) ClientOption { return func(c *Client) { c.ctx = ctx } }
func WithID(id string) ClientOption                { return func(c *Client) { c.id = id } }
func WithDumpEvents(dump bool) ClientOption        { return func(c *Client) { c.dump = dump } }

func NewClient(endpoint string, options ...ClientOption) *Client {
	c := &Client{endpoint: endpoint, commands: make(chan any, 128), answers: make(chan any, 8)}
	for _, option := range options {
		option(c)
	}
	return c
}

// Connect opens the socket. The id goes into the URL as it is.
func (c *Client) Connect(kind string) error {
	url := c.endpoint + "/call/" + kind + "?"
	if c.id != "" {
		url += "id=" + c.id + "&"
	}
	connection, _, err := websocket.DefaultDialer.Dial(fmt.Sprintf("%sdump=%v", url, c.dump), nil)
	if err != nil {
		return err
	}
	c.connection = connection
	go func() {
		for {
			kind, message, err := connection.ReadMessage()
			if err != nil {
				c.OnClose(err.Error())
				return
			}
			if kind == websocket.TextMessage {
				go c.take(message) // each event by itself: no meaning may hang on their order
			}
		}
	}()
	go func() {
		for command := range c.commands {
			if connection.WriteJSON(command) != nil {
				return
			}
		}
	}()
	return nil
}

func bind[T any](c *Client, message []byte, handlers ...func(T)) {
	var event T
	if err := json.Unmarshal(message, &event); err != nil {
		c.OnEvent("discarded", fmt.Sprintf("%v: %s", err, message))
		return
	}
	for _, handle := range handlers {
		if handle != nil {
			handle(event)
		}
	}
}

func (c *Client) take(message []byte) {
	var head struct {
		Event string `json:"event"`
	}
	if err := json.Unmarshal(message, &head); err != nil {
		c.OnEvent("discarded", err.Error())
		return
	}
	c.OnEvent(head.Event, string(message))
	switch head.Event {
	case "incoming":
		bind(c, message, c.OnIncoming)
	case "answer":
		bind(c, message, func(event AnswerEvent) { c.outcome(&event) })
	case "reject":
		bind(c, message, func(event RejectEvent) { c.outcome(errors.New(event.Reason)) }, c.OnReject)
	case "ringing":
		bind(c, message, c.OnRinging)
	case "hangup":
		bind(c, message, func(event HangupEvent) { c.outcome(errors.New(event.Reason)) }, c.OnHangup)
	case "speaking":
		bind(c, message, c.OnSpeaking)
	case "silence":
		bind(c, message, c.OnSilence)
	case "dtmf":
		bind(c, message, c.OnDTMF)
	case "trackStart":
		bind(c, message, c.OnTrackStart)
	case "trackEnd":
		bind(c, message, c.OnTrackEnd)
	case "interruption":
		bind(c, message, c.OnInterruption)
	case "asrFinal":
		bind(c, message, c.OnAsrFinal)
	case "asrDelta":
		bind(c, message, c.OnAsrDelta)
	case "metrics":
		bind(c, message, c.OnMetrics)
	case "error":
		bind(c, message, func(event ErrorEvent) { c.outcome(errors.New(event.Error)) }, c.OnError)
	case "addHistory":
		bind(c, message, c.OnAddHistory)
	case "ping":
		bind(c, message, c.OnPing)
	}
}

func (c *Client) outcome(of any) {
	select {
	case c.answers <- of:
	default:
	}
}

// Invite places the call; the first answer, error, reject or hangup is its outcome.
func (c *Client) Invite(ctx context.Context, option CallOption) (*AnswerEvent, error) {
	c.send("invite", map[string]any{"option": option})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case outcome := <-c.answers:
		if answer, ok := outcome.(*AnswerEvent); ok {
			return answer, nil
		}
		return nil, outcome.(error)
	}
}

func (c *Client) send(command string, fields map[string]any) error {
	fields["command"] = command
	c.commands <- fields
	return nil
}

func (c *Client) speak(streaming bool, text, speaker, playID string, end, hangup bool, wait *uint32, base64 bool) error {
	fields := map[string]any{"text": text}
	for name, flag := range map[string]bool{"streaming": streaming, "endOfStream": end, "autoHangup": hangup, "base64": base64} {
		if flag {
			fields[name] = true
		}
	}
	for name, value := range map[string]string{"speaker": speaker, "playId": playID} {
		if value != "" {
			fields[name] = value
		}
	}
	if wait != nil {
		fields["waitInputTimeout"] = *wait
	}
	return c.send("tts", fields)
}

func (c *Client) TTS(text, speaker, playID string, end, hangup bool, _ *TTSOption, wait *uint32, base64 bool) error {
	return c.speak(false, text, speaker, playID, end, hangup, wait, base64)
}

func (c *Client) StreamTTS(text, speaker, playID string, end, hangup bool, _ *TTSOption, wait *uint32, base64 bool) error {
	return c.speak(true, text, speaker, playID, end, hangup, wait, base64)
}

func (c *Client) Ringing(ringtone string, recorder *RecorderOption) error {
	return c.send("ringing", map[string]any{"ringtone": ringtone, "recorder": recorder})
}

func (c *Client) Accept(option CallOption) error {
	return c.send("accept", map[string]any{"option": option})
}

func (c *Client) Play(url string, hangup bool, _ *uint32) error {
	return c.send("play", map[string]any{"url": url, "autoHangup": hangup})
}

func (c *Client) Interrupt(graceful bool) error {
	return c.send("interrupt", map[string]any{"graceful": graceful})
}

func (c *Client) Hangup(reason string) error {
	return c.send("hangup", map[string]any{"reason": reason})
}

func (c *Client) Refer(caller, callee string, _ *ReferOption) error {
	return c.send("refer", map[string]any{"caller": caller, "callee": callee})
}

func (c *Client) History(speaker, text string) error {
	return c.send("history", map[string]any{"speaker": speaker, "text": text})
}

// Shutdown closes the socket.
func (c *Client) Shutdown() error { return c.connection.Close() }
