package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

// A peer is pion with one codec and no telephone-event, on loopback addresses only. It sends a steady buzz.
type peer struct {
	connection *webrtc.PeerConnection
	track      *webrtc.TrackLocalStaticSample
	gathered   <-chan struct{}
	heard      atomic.Int64
	stop       chan struct{}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// iceServers reads /iceservers as pion's type; they are not used, since tests stay on this machine.
func iceServers(endpoint string) {
	response, err := http.Get(strings.Replace(endpoint, "ws", "http", 1) + "/iceservers")
	must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(err)
	var servers []webrtc.ICEServer
	must(json.Unmarshal(body, &servers))
	say("iceservers", len(servers))
}

func newPeer(codec string) *peer {
	known := map[string]webrtc.RTPCodecParameters{
		"pcmu": {RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU, ClockRate: 8000}, PayloadType: 0},
		"pcma": {RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMA, ClockRate: 8000}, PayloadType: 8},
		"g722": {RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeG722, ClockRate: 8000}, PayloadType: 9},
	}
	engine, settings := &webrtc.MediaEngine{}, webrtc.SettingEngine{}
	must(engine.RegisterCodec(known[codec], webrtc.RTPCodecTypeAudio))
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithSettingEngine(settings))
	connection, err := api.NewPeerConnection(webrtc.Configuration{})
	must(err)
	track, err := webrtc.NewTrackLocalStaticSample(known[codec].RTPCodecCapability, "audio", "audio")
	must(err)
	_, err = connection.AddTrack(track)
	must(err)
	p := &peer{connection: connection, track: track, stop: make(chan struct{})}
	connection.OnConnectionStateChange(func(state webrtc.PeerConnectionState) { say("connection", state.String()) })
	connection.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		say("track", remote.Codec().MimeType)
		for {
			packet, _, err := remote.ReadRTP()
			if err != nil {
				return
			}
			if count := p.heard.Add(1); count == 1 || count == 50 {
				say("heard", map[string]any{"packets": count, "payload": len(packet.Payload)})
			}
		}
	})
	return p
}

// offer is complete: every candidate is in it.
func (p *peer) offer() string {
	offer, err := p.connection.CreateOffer(nil)
	must(err)
	gathered := webrtc.GatheringCompletePromise(p.connection)
	must(p.connection.SetLocalDescription(offer))
	<-gathered
	return p.connection.LocalDescription().SDP
}

func (p *peer) answered(sdp string) {
	must(p.connection.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp}))
	go p.buzz()
}

// buzz sends 160 bytes each 20 ms, which all three codecs take for a sound.
func (p *peer) buzz() {
	frame := make([]byte, 160)
	for i := range frame {
		frame[i] = 0x80
		if i/10%2 == 1 {
			frame[i] = 0x00
		}
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			_ = p.track.WriteSample(media.Sample{Data: frame, Duration: 20 * time.Millisecond})
		}
	}
}

func (p *peer) close() {
	close(p.stop)
	_ = p.connection.Close()
}
