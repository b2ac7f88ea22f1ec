"""What two connected peers speak: frames, channels, calls, extensions, and the invitation handshake; all pure."""
