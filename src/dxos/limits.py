"""Every bound and time-out in the package, with its unit in its name; the asserts say how they hang together.

Values marked "0.8.3" are the other implementation's, so both sides agree on when the other is gone.
"""

# --- Turns of the event loop ---------------------------------------------------------------------------------------
SLICE_S = 0.01  # How long work goes on before everything else has its turn.

# --- Frames, channels, calls ----------------------------------------------------------------------------------------
FRAME_BYTES_MAX = 0xFFFF  # A teleport frame's length is a 16-bit number.
CHUNK_BYTES_MAX = 8_192  # 0.8.3: the payload of one teleport frame.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # One reassembled message of one channel.
CHANNELS_MAX = 4_096  # Open channels of one connection: one for each extension and each feed.
TAG_CHARS_MAX = 1_024  # The name of a channel.
CHANNEL_BUFFER_BYTES_MAX = 128 * 1024 * 1024  # Outgoing bytes of one connection before the sender must wait.
EARLY_DATA_BYTES_MAX = 1024 * 1024  # Outgoing bytes of a channel whose other end has not opened yet.
RPC_CALLS_MAX = 1_024  # Unanswered requests from one peer on one channel.
RPC_TIMEOUT_S = 3.0  # 0.8.3: default time for an answer.
RPC_OPEN_RETRY_S = 0.05  # 0.8.3: first pause before `open` is sent again.
RPC_OPEN_RETRY_S_MAX = 5.0
RPC_OPEN_TIMEOUT_S = 10.0
METHOD_CHARS_MAX = 512
REASON_CHARS_MAX = 512  # Of what a peer says in an error or at the end.
EXTENSIONS_MAX = 64  # Registered extension names of one peer.
EXTENSION_NAME_CHARS_MAX = 256
CONTROL_HEARTBEAT_S = 10.0  # 0.8.3.
CONNECTION_CLOSE_S_MAX = 3.0  # 0.8.3: how long an end in order may take.
CHANNEL_SEND_BYTES = 1024 * 1024  # Once this much of a channel waits to be sent, its next sender waits.
CONNECTION_READ_BYTES = 32 * 1024  # One read of the stream below.
CONNECTION_WRITE_BYTES = 64 * 1024  # One write: the share of the line that a small message may have to wait for.
RAW_READ_BYTES_MAX = 8 * 1024 * 1024  # Received on raw streams of one connection and not read; then its reader waits.
RPC_CALLS_READ_MAX = RPC_CALLS_MAX // 2  # With this many unanswered, we read no more; and call no more ourselves.
CONTROL_IDLE_S_MAX = 60.0  # 0.8.3: no heartbeat answered for this long ends the connection.
AUTH_CALL_TIMEOUT_S = 60.0  # 0.8.3.
AUTH_CHALLENGE_BYTES = 32
AUTH_CHALLENGE_BYTES_MAX = 1_024  # Of a peer's challenge; what a stranger has us sign stays small.
REPLICATOR_CALL_TIMEOUT_S = 10.0  # 0.8.3.
AUTH_TIMEOUT_S = 30.0  # 0.8.3: how long a verifier waits for a key to become known.
assert CHUNK_BYTES_MAX + 16 <= FRAME_BYTES_MAX, "a chunk and its header fit a frame"
assert CONTROL_IDLE_S_MAX >= 3 * CONTROL_HEARTBEAT_S, "two lost heartbeats must not end a connection"

# --- Signalling, swarms ---------------------------------------------------------------------------------------------
SIGNAL_PING_S = 10.0  # 0.8.3: the text frame `__ping__`.
SIGNAL_READY_TIMEOUT_S = 5.0  # 0.8.3: the server answers `streamReady` within this.
SIGNAL_RETRY_S_MIN = 0.25
SIGNAL_RETRY_S_MAX = 10.0
SIGNAL_FRAME_BYTES_MAX = 1024 * 1024
SIGNAL_PEERS_PER_SWARM_MAX = 1_000
SIGNAL_SWARMS_PER_SOCKET_MAX = 1_000
SIGNAL_QUEUE_FRAMES_MAX = 4_096  # Undelivered frames for one socket before it is closed.
MESSAGE_RETRY_S = 1.0  # 0.8.3: first pause before a signalled message is sent again; then doubled.
MESSAGE_TIMEOUT_S = 10.0  # 0.8.3.
MESSAGE_IDS_REMEMBERED_MAX = 10_000  # To drop repeated deliveries.
OFFER_DELAY_S = 0.1  # 0.8.3: the peer with the higher key waits before it offers.
TRANSPORT_CONNECT_TIMEOUT_S = 10.0  # 0.8.3.
SIGNAL_SOCKETS_MAX = 1_000  # Open sockets of one server.
SIGNAL_SOCKET_IDLE_S_MAX = 60.0  # A socket silent for this long is gone; clients ping every SIGNAL_PING_S.
SIGNAL_REQUESTS_PER_S_MAX = 500.0  # Of one socket, on average.
SIGNAL_REQUESTS_BURST_MAX = 5_000  # Of one socket, at once: a client that rejoins all its swarms.
SIGNAL_OPEN_TIMEOUT_S = 5.0  # TCP, TLS and the websocket handshake together.
SIGNAL_HEADER_BYTES_MAX = 16 * 1024  # Of a websocket handshake.
MESSAGES_PENDING_MAX = 10_000  # Sent reliably and not yet acknowledged.
OFFER_TIMEOUT_S = 15.0  # An offer that is acknowledged but never answered.
CONNECTING_MAX = 10  # Connections being made at once, over all swarms.
CONNECTION_STABLE_S = 5.0  # 0.8.3: a connection that lasted this long was a success; the next pause is short again.
TRANSPORT_SIGNALS_MAX = 256  # Signals for one connection that its transport has not read.
SWARMS_MAX = 10_000
SWARM_PEERS_MAX = 1_000
MMST_ORIGINATE_MAX = 4  # 0.8.3.
MMST_PEERS_MAX = 10  # 0.8.3.
MMST_SAMPLE_PEERS = 20  # 0.8.3.
MMST_UPDATE_S = 10.0  # 0.8.3: one change of the topology in this time.
CONNECT_RETRY_S_MIN = 0.5
CONNECT_RETRY_S_MAX = 30.0
assert SIGNAL_SOCKET_IDLE_S_MAX >= 3 * SIGNAL_PING_S, "two lost pings must not end a socket"
assert OFFER_TIMEOUT_S > MESSAGE_TIMEOUT_S, "an offer waits for its answer longer than for its acknowledgement"

# --- Feeds ----------------------------------------------------------------------------------------------------------
BLOCK_BYTES_MAX = 1024 * 1024  # 0.8.3 allows 8 MiB; a credential is below 10 kB.
FEED_BLOCKS_MAX = 1_000_000
FEED_PING_S = 10.0  # 0.8.3 gives up after 20 s of silence.
FEED_IDLE_S_MAX = 20.0
FEED_REQUESTS_MAX = 16  # Blocks asked for at once.
FEED_WANT_BLOCKS = 1_048_576  # 0.8.3: what a `Want` covers.
FEED_FRAME_BYTES_MAX = BLOCK_BYTES_MAX + 16 * 1024  # A block and its proof, or a bitfield of the longest feed.
FEED_BITFIELDS_MAX = 64  # Bitfields one peer may send on a stream; 0.8.3 sends one.
FEED_UPLOADS_MAX = 4_096  # Blocks one peer may have asked for and not got; 0.8.3 asks for 1,024 at once.
FEED_SEND_BYTES = 256 * 1024  # Once this much waits to be sent on a stream, no further block is read.
FEEDS_PER_SPACE_MAX = 10_000
assert FEED_IDLE_S_MAX >= 2 * FEED_PING_S

# --- Credentials ----------------------------------------------------------------------------------------------------
CREDENTIAL_BYTES_MAX = 256 * 1024
CHAIN_DEPTH_MAX = 8
PARENTS_MAX = 256
DISPLAY_NAME_CHARS_MAX = 1_000
NOTARIZE_CREDENTIALS_MAX = 64
DEVICES_MAX = 1_000  # Of one identity; profiles of devices not authorised yet that are kept.
CREDENTIALS_EARLY_MAX = 4_096  # Of one space, kept until the credentials they build on arrive.
NOTARIZE_FEEDS_MAX = 256  # Feeds of one identity that are admitted for it; the records of a space are for ever.
NOTARIZE_RETRY_S = 1.0
NOTARIZE_TIMEOUT_S = 10.0

# --- Invitations ----------------------------------------------------------------------------------------------------
INVITATION_CODE_CHARS_MAX = 4_096
INVITATION_TIMEOUT_S = 180.0  # 0.8.3.
INVITATION_LIFETIME_S = 24 * 3_600.0  # 0.8.3 gives a link seven days; a stolen link should not live that long.
INVITATION_LIFETIME_S_MAX = 30 * 24 * 3_600.0
INVITATION_ATTEMPTS_MAX = 3  # Wrong authentication codes of one invitation, over its whole life.
AUTH_CODE_DIGITS = 6
OPTIONS_TIMEOUT_S = 10.0  # 0.8.3.
INTRODUCE_DELAY_S = 0.1  # A 0.8.3 host is ready only this long after it answered `Options`.
INTRODUCE_TRIES_MAX = 6  # While a 0.8.3 host says it is not ready; each pause is twice the last.
ADMISSION_TIMEOUT_S = 10.0  # For a host to count a failure or write an admission; 0.8.3 waits 3 s.
INVITATIONS_OPEN_MAX = 256

# --- Documents ------------------------------------------------------------------------------------------------------
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
DOCUMENTS_PER_SPACE_MAX = 1_000_000
DOCUMENT_COMPACT_BYTES_MIN = 16 * 1024  # Change chunks of one document before they become a snapshot.
DOCUMENTS_CACHED_MAX = 256  # Loaded CRDT documents held in memory by one profile.
DOCUMENTS_CONTESTED_MAX = 1_024  # Documents of one space that claim objects which another document has.
DOCUMENTS_CHECKED_MAX = 100  # Documents without a row that are looked at when a space opens: about 20 ms.
DOCTOR_FINDINGS_MAX = 10_000  # What one check of a profile lists; what is beyond is counted, and repaired too.
STRING_SCALAR_CHARS_MIN = 300_000  # 0.8.3: longer strings are scalars, not collaborative text.
VALUE_DEPTH_MAX = 64
SPLICE_JOINED_CHARS_MAX = 1_000  # Characters of edits of a text that are made one edit.
COLLECTION_QUERY_S = 30.0  # 0.8.3.
SYNC_DECLINED_S = 5.0  # Until a peer that declined a document is asked again what it has.
SYNC_RETRY_S = 1.0
ROOT_SETTLE_S = 2.0  # A 0.8.3 client is at a root up to 0.7 s after its services are, on a machine that is not busy.
ROOT_APART_S = 10.0  # A peer that does not come to our root gets what is new all the same.
SYNC_BATCH_BYTES = 16 * 1024  # Messages made at once for one peer, about 10 ms; the next are made when these are sent.
SYNC_LOOKS_MAX = 256  # Documents looked at in one turn, whether there is something to say about them or not: 4 ms.
SYNC_INLINE_BYTES_MAX = 128 * 1024  # Longer messages, such as lists of 1,300 documents, are decoded by a worker.
SYNC_ANSWERS_MAX = 65_536  # Answers waiting to be sent to one peer.
SYNC_PENDING_DOCUMENTS_MAX = 16_384  # Documents that one peer has announced and not yet sent.
SYNC_REFUSED_DOCUMENTS_MAX = 256  # Documents that one reader has changed on its side only.
DOCUMENT_HEADS_MAX = 4_096  # Concurrent latest changes of one document.
PEER_ID_CHARS_MAX = 1_024  # The automerge-repo id that a peer gives itself.
SYNC_CALLS_MAX = 16  # Document messages to one peer that wait for their answer.
SYNC_CALL_TIMEOUT_S = 30.0
EPOCH_CHANGES_COMPARED_MAX = 32  # Latest states of a root among which the one that a new epoch copied is looked for.
COMPACT_DOCUMENTS = 25  # Documents compacted at once: about 10 ms, in which the host does nothing else.
PACKED_SNAPSHOT_BYTES_MAX = 16 * 1024  # Larger ones hold mostly what is their own, and are compressed already.
PACKED_DICTIONARY_BYTES_MAX = 4 * 1024  # A snapshot with which others are packed.
PACKED_DICTIONARIES_MAX = 16  # Of one space: about one for each type of object.
SHRINK_PAGES = 512  # Pages given back to the disk at once.
GOSSIP_BYTES_MAX = 64 * 1024
GOSSIP_CHANNEL_CHARS_MAX = 1_024
GOSSIP_ID_BYTES_MAX = 65  # 0.8.3 sends 32; each is remembered.
GOSSIP_QUEUE_MAX = 256  # Messages waiting for one neighbour; further ones are lost to it.
PRESENCE_PEERS_MAX = 1_000
GOSSIP_IDS_REMEMBERED_MAX = 10_000
PRESENCE_ANNOUNCE_S = 10.0  # 0.8.3.
PRESENCE_OFFLINE_S = 20.0  # 0.8.3.
assert PRESENCE_ANNOUNCE_S < PRESENCE_OFFLINE_S

# --- Clients --------------------------------------------------------------------------------------------------------
UPDATE_OBJECTS_MAX = 50  # Objects in one update of the host: about 15 ms, in which it does nothing else.
STREAM_VALUES_MAX = 1_024  # Values buffered for one slow reader of an observable.
STATUS_TIMEOUT_S = 10.0  # 0.8.3: how long a host may take to say that it works.
CLOSE_TIMEOUT_S = 10.0  # What a cancelled client has to store what was not stored yet.
TABLE_ROWS_MAX = 60  # Shown by a notebook; what is left out is said.
TABLE_COLUMNS_MAX = 20
TABLE_CELL_CHARS_MAX = 120

# --- Links between processes of one profile ---------------------------------------------------------------------------
LINK_MESSAGE_BYTES_MAX = 1024 * 1024  # One message; the longest has the settings of a client.
LINK_BUFFER_BYTES_MAX = 4 * 1024 * 1024  # Not yet read by the other process; then it is given up.
LINK_DESCRIPTORS_MAX = 64  # Received and not yet taken.
CLIENT_DESCRIPTORS_MIN = 17  # What a process that shares a profile has open at once while it begins to lead.
LINK_BACKLOG_MAX = 128  # Connections that a process has not accepted yet.
ZYGOTE_ADOPT_S = 5.0  # How long the worker's parent waits for a next leader.
ZYGOTE_ANSWER_S = 0.5  # One that is ready forks within milliseconds; after this another one is started.
WORKER_LOG_BYTES_MAX = 1024 * 1024  # Then it becomes an older log.
WORKER_LOGS_MAX = 2  # Older ones kept.
STATUS_ANSWER_S = 0.6  # How long a leader may take to say who shares the profile; then it is silent.
AGENT_IDLE_S = 300.0  # How long an agent stays when nobody else uses the profile.
AGENT_LOOK_S = 1.0  # How often it looks whether anybody does.
AGENT_START_S = 20.0  # For an agent to take part, on a machine that is busy.
AGENT_STOP_S = 20.0  # For an agent to end in order.
WORKER_CLOSE_S = 5.0  # How long a client that leaves waits for the worker to let go of the storage.

# --- Leader, coordinator, worker ------------------------------------------------------------------------------------
HOST_TEXT_CHARS_MAX = 512 * 1024  # The settings of a client as JSON.
LEADER_BEAT_S = 0.5  # A leader moves its heartbeat, and everybody looks at it.
LEADER_STALE_S = 2.5  # A heartbeat that did not move for this long is that of a frozen process.
LEADER_TICK_LATE_S = 1.0  # Whoever looks this late was delayed itself, and judges nobody by what it missed.
LOCK_RETRY_S = 1.0  # Between tries of a lock that another process has.
LOCK_RETRY_S_MIN = 0.01  # After the connection to its holder ended; then doubled.
STEAL_COOLDOWN_S = 5.0  # A leader this young is not deposed; doubled for each that brought no session.
LEADER_STEALS_MAX = 4  # Without a session in between.
LEADER_FAILURES_MAX = 4  # In a row, before the user is told.
LEADER_RETRY_S_MIN = 1.0  # Pause after a leadership failed; then doubled.
LEADER_RETRY_S_MAX = 30.0
HAND_OVER_PAUSE_S = 3.0  # For the newer process to take the lock.
HAND_OVER_START_S = 0.2  # By which the newer process is ahead of the others that follow the older one.
HAND_OVER_S_MAX = 30.0  # How long a newer process asks one older leader after another.
COORDINATOR_LINKS_MAX = 1_024
HELLO_TIMEOUT_S = 2.0  # Between a connection and its first message, on both sides.
LINK_RETRY_S_MIN = 0.01  # For the coordinator's socket of a new leader to appear; then doubled.
LINK_RETRY_S_MAX = 0.5
PORT_POLL_S = 0.5
PORT_TIMEOUT_S = 15.0  # A request for a port not answered for so long is made anew; then doubled.
PORT_TIMEOUT_S_MAX = 120.0
WORKER_START_S_MAX = 30.0  # For a new process to import the host, on a machine that is busy.
WORKER_PING_S = 0.5
WORKER_STALE_S = 2.0  # A worker that did not answer for this long is killed.
WORKER_BUSY_S_MAX = 60.0  # A worker whose host does not end its turn for this long answers no more.
WORKER_GRACE_S = 3.0  # For a worker to end in order.
WORKER_KILL_S_MAX = 5.0  # For a killed process to be gone.
WORKER_STABLE_S = 1.0  # A worker that served this long was a success.
WORKER_DEATHS_MAX = 3  # Of workers that served shorter, in a row.
WORKER_ADOPT_S = 5.0  # How long a worker with sessions waits for a next leader.
WORKER_SESSIONS_MAX = 1_024
LOOPBACK_TOKEN_BYTES = 32
LOOPBACK_TOKEN_S = 10.0  # How long a token admits.
LOOPBACK_SHOW_S = 5.0  # How long a connection may take to show one, and the worker to answer.
LOOPBACK_TRIES_MAX = 3
LOOPBACK_WAITING_MAX = 64  # Connections that have shown none.
assert LEADER_STALE_S >= 4 * LEADER_BEAT_S, "three late heartbeats must not depose a leader"
assert LEADER_BEAT_S < LEADER_TICK_LATE_S < LEADER_STALE_S, "a late look is noticed before it can do harm"
assert WORKER_STALE_S >= 3 * WORKER_PING_S, "two late answers must not kill a worker"
assert WORKER_ADOPT_S > LEADER_STALE_S + LOCK_RETRY_S, "a worker whose leader was deposed is adopted"

# --- Client and host in two processes -------------------------------------------------------------------------------
CLIENT_ID_CHARS_MAX = 128
SESSION_CALLS_MAX = 65_536  # Calls and streams of one client; it has one stream or more for each open space.
SESSION_RUNNING_MAX = 256  # Calls of one client that the host works on; further ones wait unread.
SESSION_READING_MAX = 2  # Of these, how many may read at once: others have their turn after so many pieces of work.
SESSION_QUEUE_BYTES_MAX = 64 * 1024 * 1024  # Waiting for one client that reads slowly; then its session ends.
SESSION_SEND_BYTES = 1024 * 1024  # With this much waiting, the next piece of a long answer waits.
SESSION_PIECE_ITEMS = 200  # Of a long answer that are encoded at once: about 1 ms.
SESSION_PIECE_ITEMS_FIRST = 20  # By which the host learns how long they are.
SESSION_PIECE_BYTES = 256 * 1024  # Of a long request, or of an answer in one value.
SESSION_PACE_S = 0.002  # Between writes of what is not urgent.
SESSION_RECEIVE_BYTES = 256 * 1024  # One read.
HOST_HEARTBEAT_S = 1.0  # How often the host tells its status again.
HOST_SILENCE_S_MAX = 3.0  # Nothing heard for this long: the status is unknown.
RECONNECT_S_MIN = 0.002  # Before a client connects again, doubled each time that a session was short.
RECONNECT_S_MAX = 1.0
LOG_MESSAGE_CHARS_MAX = 4_096
RECEIPT_AGE_S_MAX = 24 * 3_600.0  # Of a client that did not say goodbye.
SPACE_REOPEN_S = 10.0  # What an update waits for its space while a host starts.
assert HOST_SILENCE_S_MAX >= 3 * HOST_HEARTBEAT_S, "two late heartbeats must not look like a lost host"
assert SESSION_PIECE_BYTES < SESSION_SEND_BYTES < SESSION_QUEUE_BYTES_MAX

# --- Storage --------------------------------------------------------------------------------------------------------
STORE_BUSY_TIMEOUT_S = 5.0  # How long a statement waits for another process that writes the same file.
WAL_CHECKPOINT_BYTES = 4 * 1024 * 1024  # A write-ahead log longer than this is copied into the database by `sync_wal`.
WAL_BYTES_MAX = 64 * 1024 * 1024  # Here SQLite copies it by itself, in the middle of a commit.
BACKUPS_MAX = 3  # Copies of the database kept from before earlier migrations.
CHUNKS_PER_DOCUMENT_MAX = 65_536  # Change chunks of one document before they are joined into one.
CONDITION_TERMS_MAX = 500  # Leaves and joints of one condition; SQLite parses expressions to a depth of 1 000.
CONDITION_DEPTH_MAX = 64  # Nesting of one condition.
QUERY_SCAN_ROWS_MAX = 5_000  # A query that would look at more rows has an index made for it; a scan of these is 10 ms.
QUERY_SCANNED_ROWS_MAX = 100_000  # As have queries that looked at more together since the profile was opened: 0.2 s.
QUERY_SCANNED_PATHS_MAX = 256  # Properties for which these are counted.
QUERY_SCAN_ROWS_MIN = 500  # Looking at fewer rows takes no longer than an index does.
QUERY_INDEXES_MAX = 16  # Indexes of one profile that queries had made; each costs about 60 bytes and 2 us an object.
QUERY_INDEXES_DECLARED_MAX = 48  # Indexes of one profile that applications asked for; SQLite allows 64 in all.
TEXT_INDEX_BATCH = 250  # Objects whose words are indexed at once, about 5 ms.
SEARCH_CHARS_MAX = 4_096
SNIPPET_WORDS = 16
KEY_FILE_BYTES_MAX = 4_096  # A keyring file is about 210 bytes.
assert WAL_CHECKPOINT_BYTES < WAL_BYTES_MAX, "a log is copied outside commits before it is copied inside one"

# --- Export and import ----------------------------------------------------------------------------------------------
ARCHIVE_BYTES_MAX = 1024 * 1024 * 1024  # A space in one piece, as an archive, JSON or CSV: it is held in memory.
ARCHIVE_METADATA_BYTES_MAX = 64 * 1024
IMPORT_DOCUMENTS_BATCH = 50  # Documents written in one transaction of an import.
EXPORT_PAGE_OBJECTS = 200  # Objects written by an export before everything else has its turn.
BACKUP_FRAME_BYTES = 64 * 1024  # What is sealed at once.
BACKUP_SCRYPT_LOG2 = 17  # One guess of a passphrase costs 0.4 s and 128 MiB.
BACKUP_SCRYPT_LOG2_MAX = 20  # What a backup from elsewhere may make us spend: 1 GiB.
BACKUP_FILES_MAX = 100_000
BACKUP_MANIFEST_BYTES_MAX = 32 * 1024 * 1024
PARSE_INLINE_BYTES_MAX = 1024 * 1024  # Longer JSON is parsed by a worker thread.

# --- History --------------------------------------------------------------------------------------------------------
DIFFERENCE_PAIRS_MAX = 1_000_000  # Pairs of elements or characters compared; beyond, all between is one replacement.
HISTORY_CHANGES_MAX = 1_000  # Newest changes of a document that are looked at, and returned, by one call.
UNDO_DOCUMENTS_MAX = 200  # Documents of one step that are undone in one turn: about 0.2 s.
MOMENTS_AT_ONCE_MAX = 10_000  # Changes of one step that are looked up at once, to be undone.
MOMENTS_PER_DOCUMENT_MAX = 1_024  # Changes of one document whose times are kept when it is compacted.
BATCH_OBJECTS_MAX = 10_000  # Objects in one atomic batch: about 1.5 s, in which the host does nothing else.
