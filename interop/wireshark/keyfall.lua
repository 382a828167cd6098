-- Keyfall for Wireshark: key sharing over UDP, key search, and signed commands on a multicast carrier.
-- Written from docs/PROTOCOL.md alone. It holds no key and shows what anybody on the path can read (README.md).
--
-- To use: wireshark -X lua_script:interop/wireshark/keyfall.lua, or put the three files of this folder into "Personal Lua
-- Plugins" of Help > About > Folders. Ports are preferences of the protocol; "Decode As" and a heuristic know other ports.

local keyfall = Proto("keyfall", "Keyfall")

-- Section 2: numbers and their names

local MESSAGES = {
  [1] = "KEY-REQ", [2] = "COOKIE", [3] = "KEY-DIS", [4] = "ACK", [5] = "STOP-ACK", [6] = "START-ACK", [7] = "PART",
  [8] = "COMMAND", [9] = "HELLO", [10] = "INTRODUCTION", [11] = "BUNDLE", [12] = "PROBE", [13] = "ANSWER",
}
local SUITES = { [0] = "none", [1] = "psk", [2] = "hpke", [3] = "hpke-pq", [4] = "rsa-misty1" }
local COMMANDS = {
  [1] = "TIME", [2] = "RENEW", [3] = "KEYDIST", [4] = "DELETE", [5] = "INIT", [6] = "EXCLUDE", [8] = "KEYSET",
  [10] = "STOP", [11] = "START", [12] = "NOTIFY", [15] = "LOCK", [16] = "UNLOCK",
}
local TARGETS = { [0] = "all", [1] = "a group", [2] = "a terminal", [3] = "whoever finds a handle" }
local CLASSES = { [1] = "beat", [2] = "keys", [3] = "erase", [4] = "KEM X25519", [5] = "KEM X-Wing", [6] = "KEM RSA" }
local STATUSES = {
  [0] = "all taken", [1] = "refused: bounds", [2] = "refused: could not be stored", [3] = "refused: locked",
}
local DATAGRAM_MAX = 1200
local PART_OCTETS = 1100 -- of a message

-- Every field, in the order of its message

local fields = {}
local in_order = {}

local function field(name, make, title, ...)
  fields[name] = ProtoField[make]("keyfall." .. name, title, ...)
  in_order[#in_order + 1] = fields[name]
end

field("marker", "bytes", "Non-ESP marker")
field("version", "uint8", "Version")
field("suite", "uint8", "Suite", base.DEC, SUITES)
field("type", "uint8", "Message", base.DEC, MESSAGES)
field("id", "bytes", "Key request id")
field("g", "uint32", "G")
field("iv", "bytes", "IV")
field("ct", "bytes", "Ciphertext")
field("enc", "bytes", "Encapsulated key")
field("legacy", "bytes", "Message in the published layout")
field("cookie", "bytes", "Cookie")
field("ref", "bytes", "Reference to the KEY-REQ")
field("request", "framenum", "The KEY-REQ is in", base.NONE, frametype.REQUEST)
field("frame", "bytes", "Signed command")
field("cose", "bytes", "Signed distribution")
field("status", "uint8", "Status", base.DEC, STATUSES)
field("mac", "bytes", "MAC")
field("group", "uint32", "Group")
field("transaction", "uint64", "Transaction")
field("epoch", "uint32", "Epoch")
field("generation", "uint32", "Generation")
field("part.whole", "bytes", "Hash of the whole")
field("part.index", "uint8", "Part")
field("part.count", "uint8", "Parts")
field("part.octets", "bytes", "Octets of the part")
field("part.message", "bytes", "Message that the parts make up")
field("hello.piece", "uint8", "Piece that is asked for")
field("hello.pad", "bytes", "Padding")
field("introduction.piece", "uint8", "Piece")
field("introduction.pieces", "uint8", "Pieces")
field("introduction.hash", "bytes", "Hash of the whole")
field("introduction.octets", "bytes", "Octets of the piece")
field("introduction.root", "bytes", "Public key of the root")
field("introduction.kem", "bytes", "Public KEM key")
field("bundle.message", "bytes", "Message of another")
field("signer.algorithm", "int32", "Algorithm")
field("signer.name", "bytes", "Key name of the signer")
field("signature", "bytes", "Signature")
field("command.stream", "bytes", "Stream")
field("command.sequence", "uint64", "Sequence")
field("command.issued_at", "absolute_time", "Issued at", base.UTC)
field("command.not_after", "absolute_time", "Not after", base.UTC)
field("command.type", "uint8", "Command", base.DEC, COMMANDS)
field("command.target", "uint8", "Target", base.DEC, TARGETS)
field("command.target.group", "uint32", "Target group")
field("command.target.terminal", "uint32", "Target terminal")
field("command.body", "bytes", "Body")
field("command.g", "uint32", "G")
field("time.seconds", "absolute_time", "Time", base.UTC)
field("time.error", "uint32", "Largest error (ms)")
field("floor", "bytes", "Floor")
field("entry", "bytes", "Entry")
field("kid", "uint32", "Key id")
field("activate_at", "absolute_time", "Activate at", base.UTC)
field("step", "uint8", "Step")
field("period", "uint32", "Period (s)")
field("lease_end", "absolute_time", "Lease end", base.UTC)
field("recipient", "bytes", "Recipient")
field("handle", "bytes", "Handle")
field("wrapped", "bytes", "Wrapped key")
field("exclude.terminal", "uint32", "Excluded terminal")
field("exclude.old", "uint32", "Old epoch")
field("exclude.new", "uint32", "New epoch")
field("stop.deadline", "absolute_time", "Deadline", base.UTC)
field("notify.spread", "uint32", "Spread (ms)")
field("keyset.version", "uint32", "Version of the KEYSET")
field("keyset.issued_at", "absolute_time", "KEYSET issued at", base.UTC)
field("keyset.key", "bytes", "Listed key")
field("keyset.name", "bytes", "Key name")
field("keyset.public", "bytes", "Public key")
field("keyset.class", "uint8", "Class", base.DEC, CLASSES)
field("keyset.not_before", "absolute_time", "Not before", base.UTC)
field("keyset.expires", "absolute_time", "Expires", base.UTC)
field("keyset.group", "uint32", "For group")
field("keyset.g0", "uint32", "G0")
field("keyset.t0", "absolute_time", "t0", base.UTC)
field("keyset.p0", "uint32", "P0 (s)")
field("keyset.stolen", "bytes", "Stolen key")
field("keyset.longest_lease", "uint32", "Longest lease (s)")
field("keyset.suite", "uint8", "Suite allowed", base.DEC, SUITES)
field("keyset.clear", "bytes", "Prefix that goes unprotected")
field("keyset.grace", "uint32", "Grace (s)")
field("keyset.exclude_grace", "uint32", "Grace after an exclusion (s)")
field("keyset.exclude_wait", "uint32", "Powered-on seconds without sending after an EXCLUDE")
field("keyset.dead_man", "uint32", "Dead man's time (s)")
field("keyset.erase_signatures", "uint8", "Erase signatures")
field("search.nonce", "bytes", "Nonce")
field("search.answer_nonce", "bytes", "Nonce of the answer")
field("search.source", "bytes", "For whom is asked (CE1)")
field("search.destination", "bytes", "Whom it wants to reach (CE2)")
field("search.handle", "bytes", "Handle of a group")
field("record.terminal", "uint32", "Terminal")
field("record.version", "uint32", "Version of the record")
field("record.issued_at", "absolute_time", "Record issued at", base.UTC)
field("record.not_after", "absolute_time", "Record not after", base.UTC)
field("record.prefix", "bytes", "Prefix that it speaks for")
field("record.endpoint", "bytes", "Endpoint")
field("record.group", "bytes", "Packet group")
field("record.priority", "uint8", "Priority")
field("record.mtu", "uint16", "MTU")
field("record.suite", "uint8", "Suite of ESP", base.DEC, { "AES-256-GCM", "AES-128-GCM", "ChaCha20-Poly1305" })
field("record.network", "bytes", "Network")
field("record.address", "bytes", "Address")
field("record.length", "uint8", "Length")
field("record.port", "uint16", "Port")
keyfall.fields = in_order

local experts = {
  malformed = ProtoExpert.new("keyfall.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR),
  length = ProtoExpert.new("keyfall.length", "Longer than 1200 octets", expert.group.PROTOCOL, expert.severity.WARN),
  hash = ProtoExpert.new("keyfall.hash", "Not what its hash says", expert.group.CHECKSUM, expert.severity.ERROR),
}
keyfall.experts = { experts.malformed, experts.length, experts.hash }

keyfall.prefs.sharing = Pref.uint("Port of key sharing", 47900, "UDP port of the server; 0: none")
keyfall.prefs.carrier = Pref.uint("Port of the carrier", 47700, "UDP port of multicast commands; 0: none")

local beside = __DIR__ == "" and "" or __DIR__ .. "/"
local sha256 = dofile(beside .. "sha256.lua")
local cbor = dofile(beside .. "det_cbor.lua")
local demand, read_whole, is_null, array, map = cbor.demand, cbor.read_whole, cbor.is_null, cbor.array, cbor.map
local tagged, octets_of, range_of = cbor.tagged, cbor.octets_of, cbor.range_of

local function hex(octets)
  return (octets:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

local function short(octets)
  return hex(octets:sub(1, 4)) .. "…"
end

-- Adding named fields

local function add_uint(tree, name, node, most)
  local fits = node and node.kind == "uint" and node.value <= (most or 4294967295)
  demand(fits, "keyfall." .. name .. " is out of range", node)
  return tree:add(fields[name], range_of(node), node.value)
end

local function add_group(tree, name, node)
  demand(node and node.value ~= 0, "group 0", node)
  return add_uint(tree, name, node, 1073741823)
end

local function add_uint64(tree, name, node)
  demand(node and node.kind == "uint", "keyfall." .. name .. " is no number", node)
  return tree:add(fields[name], range_of(node), node.wide or UInt64.new(node.value))
end

local function add_time(tree, name, node)
  demand(node and node.kind == "uint" and node.value <= 4294967295, "keyfall." .. name .. " is no time", node)
  return tree:add(fields[name], range_of(node), NSTime.new(node.value))
end

local function add_bytes(tree, name, node, least, most)
  demand(node and node.kind == "bytes" and node.count >= (least or 0) and node.count <= (most or least or 65535),
    "keyfall." .. name .. " has a wrong length", node)
  return tree:add(fields[name], range_of(node))
end

-- What is null is said, but is no field.
local function add_or_null(add, tree, name, node, ...)
  if node and is_null(node) then
    return tree:add(range_of(node), name:gsub("^.*%.", "") .. ": none")
  end
  return add(tree, name, node, ...)
end

-- A subtree over an item.
local function add_item(tree, name, node)
  demand(node, "keyfall." .. name .. " is missing")
  return tree:add(fields[name], range_of(node))
end

local KINDS = { [0] = "obey key of terminal", "wrap key of terminal", "cover key", "master key of group" }

local function add_kid(tree, node)
  local item = add_uint(tree, "kid", node)
  if node.value == 0 then
    item:append_text(" (all wrap keys)")
  else
    item:append_text(string.format(" (%s %d)", KINDS[node.value % 4], math.floor(node.value / 4)))
  end
end

local function add_standing(tree, items)
  add_kid(tree, items[1])
  add_uint(tree, "epoch", items[2])
  add_uint(tree, "generation", items[3], 2147483648)
end

-- Section 4: bodies of commands, by type

local bodies = {}

bodies[1] = function(tree, node)
  local body = map(node, { 1, 2 }, { 3 }, "TIME")
  add_time(tree, "time.seconds", body[1])
  add_uint(tree, "time.error", body[2])
  for _, floor in ipairs(body[3] and array(body[3], 1, 66, "floors") or {}) do
    add_standing(add_item(tree, "floor", floor), array(floor, 3, 3, "floor"))
  end
end

bodies[2] = function(tree, node)
  for _, entry in ipairs(array(map(node, { 1 }, {}, "RENEW")[1], 1, 32, "entries")) do
    local items, sub = array(entry, 7, 7, "entry"), add_item(tree, "entry", entry)
    add_standing(sub, items)
    add_time(sub, "activate_at", items[4])
    add_or_null(add_uint, sub, "step", items[5], 64)
    add_or_null(add_uint, sub, "period", items[6])
    add_or_null(add_time, sub, "lease_end", items[7])
  end
end

-- The IV in the unprotected header of a COSE object.
local function add_iv(tree, node)
  add_bytes(tree, "iv", map(node, { 5 }, {}, "unprotected header")[5], 12)
end

bodies[3] = function(tree, node)
  local parts = tagged(node, 96, 4, "KEYDIST")
  demand(parts[1].kind == "bytes" and octets_of(parts[1]) == "\161\1\3", "protected header", parts[1])
  add_iv(tree, parts[2])
  add_bytes(tree, "ct", parts[3], 0, 144)
  for _, recipient in ipairs(array(parts[4], 1, 17, "recipients")) do
    local items, sub = array(recipient, 3, 3, "recipient"), add_item(tree, "recipient", recipient)
    local header = map(items[2], { 1, 4 }, {}, "recipient")
    demand(header[1].kind == "negative" and header[1].value == 4, "algorithm", header[1])
    add_bytes(sub, "handle", header[4], 5)
    add_bytes(sub, "wrapped", items[3], 40)
  end
end

local function order(tree, node)
  local parts = tagged(node, 16, 3, "an order to one terminal")
  demand(parts[1].kind == "bytes", "protected header", parts[1])
  local header = map(read_whole(node.tvb, parts[1].first, parts[1].count), { 1, 4 }, {}, "protected header")
  demand(header[1].kind == "uint" and header[1].value == 3, "algorithm", header[1])
  add_bytes(tree, "handle", header[4], 5)
  add_iv(tree, parts[2])
  add_bytes(tree, "ct", parts[3], 0, 64)
end
bodies[4], bodies[5], bodies[15], bodies[16] = order, order, order, order

bodies[6] = function(tree, node)
  local body = map(node, { 1, 2 }, {}, "EXCLUDE")
  for _, terminal in ipairs(array(body[1], 1, 64, "terminals")) do
    add_uint(tree, "exclude.terminal", terminal, 16777215)
  end
  for _, entry in ipairs(array(body[2], 0, 36, "groups")) do
    local items, sub = array(entry, 4, 4, "entry"), add_item(tree, "entry", entry)
    add_group(sub, "group", items[1])
    add_uint(sub, "exclude.old", items[2])
    add_uint(sub, "exclude.new", items[3])
    demand(is_null(items[4]), "a heal seed of a later release", items[4])
  end
end

local function add_address(tree, node)
  demand(node and node.kind == "bytes" and (node.count == 4 or node.count == 16), "address", node)
  return add_bytes(tree, "record.address", node)
end

local function add_prefix(tree, name, node)
  local items, sub = array(node, 2, 2, "prefix"), add_item(tree, name, node)
  add_address(sub, items[1])
  add_uint(sub, "record.length", items[2], items[1].count * 8)
end

local LIMITS = {
  { 1, "longest_lease" }, { 4, "grace" }, { 5, "exclude_grace" }, { 6, "exclude_wait" }, { 7, "dead_man" },
  { 8, "erase_signatures" },
}

bodies[8] = function(tree, node)
  local body = map(node, { 1, 2, 3, 4, 8 }, { 6 }, "KEYSET")
  add_uint(tree, "keyset.version", body[1])
  add_time(tree, "keyset.issued_at", body[2])
  for _, key in ipairs(array(body[3], 1, 12, "keys")) do
    local items, sub = array(key, 6, 6, "listed key"), add_item(tree, "keyset.key", key)
    add_bytes(sub, "keyset.name", items[1], 8)
    add_bytes(sub, "keyset.public", items[2], 32)
    add_uint(sub, "keyset.class", items[3], 6)
    add_time(sub, "keyset.not_before", items[4])
    add_time(sub, "keyset.expires", items[5])
    for _, group in ipairs(array(items[6], 0, 64, "groups")) do
      add_group(sub, "keyset.group", group)
    end
  end
  local schedule = array(body[4], 3, 3, "schedule")
  add_uint(tree, "keyset.g0", schedule[1], 2147483648)
  add_time(tree, "keyset.t0", schedule[2])
  add_uint(tree, "keyset.p0", schedule[3])
  for _, name in ipairs(body[6] and array(body[6], 1, 8, "stolen keys") or {}) do
    add_bytes(tree, "keyset.stolen", name, 8)
  end
  local limits = map(body[8], { 1, 4, 5, 6, 7, 8 }, { 2, 3 }, "limits")
  for _, limit in ipairs(LIMITS) do
    add_or_null(add_uint, tree, "keyset." .. limit[2], limits[limit[1]])
  end
  for _, prefix in ipairs(limits[2] and array(limits[2], 1, 8, "clear list") or {}) do
    add_prefix(tree, "keyset.clear", prefix)
  end
  for _, suite in ipairs(limits[3] and array(limits[3], 1, 4, "suites") or {}) do
    add_uint(tree, "keyset.suite", suite, 4)
  end
end

local function stop(tree, node)
  local body = map(node, { 1, 2, 3, 4, 5 }, {}, "STOP")
  add_group(tree, "group", body[1])
  add_uint64(tree, "transaction", body[2])
  add_uint(tree, "epoch", body[3])
  add_uint(tree, "generation", body[4], 2147483648)
  add_time(tree, "stop.deadline", body[5])
end
bodies[10], bodies[11] = stop, stop

bodies[12] = function(tree, node)
  local body = map(node, { 1, 2 }, {}, "NOTIFY")
  add_uint(tree, "notify.spread", body[1])
  for _, entry in ipairs(array(body[2], 0, 66, "entries")) do
    local items, sub = array(entry, 3, 3, "entry"), add_item(tree, "entry", entry)
    add_group(sub, "group", items[1])
    add_uint(sub, "epoch", items[2])
    add_uint(sub, "generation", items[3], 2147483648)
  end
end

-- Section 4: a frame

local function add_signature(tree, protected, unprotected, signature)
  demand(protected.kind == "bytes", "protected header", protected)
  local header = map(read_whole(protected.tvb, protected.first, protected.count), { 1, 4 }, {}, "protected header")
  demand(header[1].kind == "negative", "algorithm", header[1])
  tree:add(fields["signer.algorithm"], range_of(header[1]), -1 - header[1].value)
  add_bytes(tree, "signer.name", header[4], 8)
  map(unprotected, {}, {}, "unprotected header")
  add_bytes(tree, "signature", signature, 64)
  return octets_of(header[4])
end

local function add_target(tree, node)
  local items = array(node, 1, 2, "target")
  add_uint(tree, "command.target", items[1], 3)
  local kind = items[1].value
  demand(#items == ((kind == 1 or kind == 2) and 2 or 1), "target", node)
  if kind == 1 then add_group(tree, "command.target.group", items[2]) end
  if kind == 2 then add_uint(tree, "command.target.terminal", items[2], 16777215) end
end

-- Section 17

local function add_record(tree, node, signer)
  local items = array(node, 7, 7, "RECORD")
  add_uint(tree, "record.terminal", items[1], 16777215)
  add_uint(tree, "record.version", items[2])
  add_time(tree, "record.issued_at", items[3])
  add_time(tree, "record.not_after", items[4])
  for _, prefix in ipairs(array(items[5], 0, 8, "prefixes")) do
    add_prefix(tree, "record.prefix", prefix)
  end
  for _, endpoint in ipairs(array(items[6], 0, 4, "endpoints")) do
    local parts, sub = array(endpoint, 2, 2, "endpoint"), add_item(tree, "record.endpoint", endpoint)
    add_address(sub, parts[1])
    demand(parts[2].value ~= 0, "port 0", parts[2])
    add_uint(sub, "record.port", parts[2], 65535)
  end
  for _, group in ipairs(array(items[7], 0, 16, "packet groups")) do
    local parts, sub = array(group, 5, 5, "packet group"), add_item(tree, "record.group", group)
    add_group(sub, "group", parts[1])
    add_uint(sub, "record.priority", parts[2], 255)
    add_or_null(add_uint, sub, "record.mtu", parts[3], 9216)
    demand(parts[4].value ~= 0, "suite 0", parts[4])
    add_uint(sub, "record.suite", parts[4], 3)
    for _, network in ipairs(array(parts[5], 0, 8, "networks")) do
      add_prefix(sub, "record.network", network)
    end
  end
  return string.format("RECORD of terminal %d, version %d, signed by %s", items[1].value, items[2].value, signer)
end

-- Adds a whole frame to a tree, and says in a few words what it is.
local function add_frame(tree, tvb, first, count)
  local whole = read_whole(tvb, first, count)
  local parts, signers = nil, {}
  demand(whole.kind == "tag" and (whole.value == 18 or whole.value == 98), "neither COSE_Sign1 nor COSE_Sign", whole)
  parts = tagged(whole, whole.value, 4, "a signed command")
  if whole.value == 18 then
    signers[1] = hex(add_signature(tree, parts[1], parts[2], parts[4]))
  else
    for _, one in ipairs(array(parts[4], 2, 4, "signatures")) do
      local items = array(one, 3, 3, "signature")
      signers[#signers + 1] = hex(add_signature(tree, items[1], items[2], items[3]))
    end
  end
  demand(parts[3].kind == "bytes", "payload", parts[3])
  local payload = read_whole(tvb, parts[3].first, parts[3].count)
  if payload.kind == "array" and whole.value == 18 then return add_record(tree, payload, signers[1]) end
  local command = map(payload, { 1, 2, 3, 4, 5, 6, 7, 8 }, {}, "command")
  add_bytes(tree, "command.stream", command[1], 4)
  add_uint64(tree, "command.sequence", command[2])
  add_time(tree, "command.issued_at", command[3])
  add_time(tree, "command.not_after", command[4])
  add_uint(tree, "command.type", command[5], 255)
  add_target(tree, command[6])
  local name = COMMANDS[command[5].value]
  demand(name, "a command that is not known", command[5])
  bodies[command[5].value](add_item(tree, "command.body", command[7]), command[7])
  add_uint(tree, "command.g", command[8], 2147483648)
  return string.format("%s sequence %s, G %d, signed by %s", name, tostring(command[2].wide or command[2].value),
    command[8].value, table.concat(signers, " and ")), command
end

-- PROTOCOL 14: messages. What one packet of a capture says about another is kept here; a new capture begins empty.

local requests, gathered, completed = {}, {}, {}

function keyfall.init()
  requests, gathered, completed = {}, {}, {}
end

local GATHERED_MAX = 256

-- Puts a piece of a whole to the others; the whole once all are there. On a second look at a packet the same as at first.
local function gather(pinfo, name, index, count, octets)
  local key = pinfo.number .. " " .. name .. " " .. index
  if pinfo.visited then return completed[key] end
  local one = gathered[name]
  if not one or one.count ~= count then
    local held = 0
    for _ in pairs(gathered) do held = held + 1 end
    if held >= GATHERED_MAX then gathered = {} end
    one = { count = count, pieces = {} }
    gathered[name] = one
  end
  one.pieces[index] = octets
  for at = 0, count - 1 do
    if not one.pieces[at] then return nil end
  end
  completed[key] = table.concat(one.pieces, "", 0, count - 1)
  return completed[key]
end

local function tvb_of(octets, title)
  return ByteArray.new(hex(octets)):tvb(title)
end

local function add_ref(tree, node)
  add_bytes(tree, "ref", node, 8)
  local request = requests[octets_of(node)]
  if request then tree:add(fields.request, request):set_generated() end
  return ", ref " .. short(octets_of(node))
end

local function add_sealed(tree, suite, enc, ct)
  add_bytes(tree, "enc", enc, suite == 2 and 32 or 1120)
  add_bytes(tree, "ct", ct, 16, 65535)
end

local messages = {}
local add_message

messages[1] = function(tree, items, suite, context)
  local at = ({ 8, 6, 6, 5 })[suite]
  demand(#items == at - 1 or #items == at, "KEY-REQ", context.node)
  if suite == 1 then
    add_bytes(tree, "id", items[4], 8)
    add_uint(tree, "g", items[5], 2147483648)
    add_bytes(tree, "iv", items[6], 12)
    add_bytes(tree, "ct", items[7], 16, 65535)
  elseif suite == 4 then
    add_bytes(tree, "legacy", items[4], 0, 65535)
  else
    add_sealed(tree, suite, items[4], items[5])
  end
  if items[at] then add_bytes(tree, "cookie", items[at], 16) end
  local ref = sha256(context.octets):sub(1, 8)
  if not context.pinfo.visited then requests[ref] = requests[ref] or context.pinfo.number end
  tree:add(fields.ref, context.tvb(context.first, 8), ref):set_generated()
  local cookie = items[at] and ", with a cookie" or ""
  return string.format(" %s %d octets, ref %s%s", SUITES[suite], context.size, short(ref), cookie)
end

messages[2] = function(tree, items, _, context)
  demand(#items == 6, "COOKIE", context.node)
  local said = add_ref(tree, items[4])
  add_bytes(tree, "cookie", items[5], 16)
  if is_null(items[6]) then
    tree:add(range_of(items[6]), "frame: none")
    return said
  end
  local sub = add_bytes(tree, "frame", items[6], 1, DATAGRAM_MAX)
  local told, command = add_frame(sub, items[6].tvb, items[6].first, items[6].count)
  demand(command and command[5].value == 1 and #command[7].items == 4, "a COOKIE brings a TIME without floors", items[6])
  return said .. ", " .. told
end

messages[3] = function(tree, items, suite, context)
  demand(#items == ((suite == 1 or suite == 4) and 5 or 6), "KEY-DIS", context.node)
  local said = string.format(" %s %d octets%s", SUITES[suite], context.size, add_ref(tree, items[4]))
  if suite == 4 then
    add_bytes(tree, "legacy", items[5], 0, 65535)
  elseif suite == 1 then
    local sub = add_bytes(tree, "cose", items[5], 1, 65535)
    local parts = tagged(read_whole(items[5].tvb, items[5].first, items[5].count), 18, 4, "COSE_Sign1")
    local signer = add_signature(sub, parts[1], parts[2], parts[4])
    demand(parts[3].kind == "bytes", "payload", parts[3])
    local sealed = array(read_whole(parts[3].tvb, parts[3].first, parts[3].count), 2, 2, "payload")
    add_bytes(sub, "iv", sealed[1], 12)
    add_bytes(sub, "ct", sealed[2], 16, 65535)
    said = said .. ", signed by " .. hex(signer)
  else
    add_sealed(tree, suite, items[5], items[6])
  end
  return said
end

messages[4] = function(tree, items, _, context)
  demand(#items == 6, "ACK", context.node)
  local said = add_ref(tree, items[4])
  add_uint(tree, "status", items[5], 3)
  add_bytes(tree, "mac", items[6], 32)
  return said .. ", " .. STATUSES[items[5].value]
end

local function confirmation(tree, items, _, context)
  demand(#items == 9, "a confirmation", context.node)
  add_bytes(tree, "id", items[4], 8)
  add_group(tree, "group", items[5])
  add_uint64(tree, "transaction", items[6])
  add_uint(tree, "epoch", items[7])
  add_uint(tree, "generation", items[8], 2147483648)
  add_bytes(tree, "mac", items[9], 32)
  return string.format(" of group %d, transaction %s", items[5].value, tostring(items[6].wide or items[6].value))
end
messages[5], messages[6] = confirmation, confirmation

messages[7] = function(tree, items, _, context)
  demand(#items == 8, "PART", context.node)
  demand(not context.inside, "a PART in a message", context.node)
  add_bytes(tree, "part.whole", items[4], 8)
  add_uint(tree, "part.index", items[5], 63)
  add_uint(tree, "part.count", items[6], 64)
  add_or_null(add_bytes, tree, "cookie", items[7], 16)
  add_bytes(tree, "part.octets", items[8], 0, DATAGRAM_MAX)
  local index, count = items[5].value, items[6].value
  demand(count >= 2 and index < count, "a part beyond the last", items[5])
  local held = #octets_of(items[8])
  local last = index == count - 1 and held > 0 and held < PART_OCTETS
  demand(held == PART_OCTETS or last, "a part that is not full", items[8])
  local whole = octets_of(items[4])
  local said = string.format(" %d of %d, whole %s", index + 1, count, short(whole))
  local name = tostring(context.pinfo.src) .. " " .. tostring(context.pinfo.dst) .. " part " .. hex(whole)
  local octets = gather(context.pinfo, name, index, count, octets_of(items[8]))
  if not octets then return said end
  local tvb = tvb_of(octets, "Message of several parts")
  local sub = tree:add(fields["part.message"], tvb())
  sub:set_generated()
  if sha256(octets):sub(1, 8) ~= whole then
    sub:add_proto_expert_info(experts.hash, "The parts are not the whole that they name")
    return said
  end
  return said .. ": " .. (add_message(sub, tvb, 0, tvb:len(), context.pinfo, "a PART"))
end

messages[8] = function(tree, items, _, context)
  demand(#items == 4, "COMMAND", context.node)
  local sub = add_bytes(tree, "frame", items[4], 1, DATAGRAM_MAX)
  return " " .. (add_frame(sub, items[4].tvb, items[4].first, items[4].count))
end

messages[9] = function(tree, items, _, context)
  demand(#items == 5, "HELLO", context.node)
  add_uint(tree, "hello.piece", items[4], 255)
  add_bytes(tree, "hello.pad", items[5], 0, DATAGRAM_MAX)
  return string.format(" asks for piece %d", items[4].value)
end

messages[10] = function(tree, items, _, context)
  demand(#items == 7, "INTRODUCTION", context.node)
  add_uint(tree, "introduction.piece", items[4], 255)
  add_uint(tree, "introduction.pieces", items[5], 255)
  add_bytes(tree, "introduction.hash", items[6], 32)
  add_bytes(tree, "introduction.octets", items[7], 0, DATAGRAM_MAX)
  local piece, pieces, hash = items[4].value, items[5].value, octets_of(items[6])
  demand(piece < pieces, "a piece beyond the last", items[4])
  local said = string.format(" piece %d of %d", piece + 1, pieces)
  local name = tostring(context.pinfo.src) .. " introduction " .. hex(hash)
  local octets = gather(context.pinfo, name, piece, pieces, octets_of(items[7]))
  if not octets then return said end
  local tvb = tvb_of(octets, "Introduction")
  local sub = tree:add(fields["part.message"], tvb())
  sub:set_generated()
  if sha256(octets) ~= hash then
    sub:add_proto_expert_info(experts.hash, "The pieces are not the whole that they name")
    return said
  end
  local parts = array(read_whole(tvb, 0, tvb:len()), 3, 3, "introduction")
  add_bytes(sub, "introduction.root", parts[1], 32)
  local frame = add_bytes(sub, "frame", parts[2], 1, DATAGRAM_MAX)
  said = said .. ": " .. (add_frame(frame, tvb, parts[2].first, parts[2].count))
  for _, public in ipairs(array(parts[3], 0, 16, "KEM keys")) do
    add_bytes(sub, "introduction.kem", public, 1, 65535)
  end
  return said
end

messages[11] = function(tree, items, _, context)
  demand(#items == 4 and not context.inside, "BUNDLE", context.node)
  local held = array(items[4], 1, 64, "BUNDLE")
  for _, one in ipairs(held) do
    local sub = add_bytes(tree, "bundle.message", one, 1, DATAGRAM_MAX)
    local said, type = add_message(sub, one.tvb, one.first, one.count, context.pinfo, "a BUNDLE")
    demand(type == 5 or type == 6, "a BUNDLE holds confirmations only", one)
    sub:append_text(": " .. said)
  end
  return string.format(" of %d", #held)
end

-- Section 18.2

local function add_end(tree, name, node)
  demand(node and node.kind == "bytes" and (node.count == 4 or node.count == 16), "address", node)
  add_bytes(tree, name, node, node.count)
  local range = node.tvb(node.first, node.count)
  return tostring(node.count == 4 and range:ipv4() or range:ipv6())
end

local function add_own_record(tree, node)
  local sub = add_bytes(tree, "frame", node, 1, 700)
  local said, command = add_frame(sub, node.tvb, node.first, node.count)
  demand(not command, "a command in the place of a record", node)
  return said:match("terminal %d+")
end

messages[12] = function(tree, items, _, context)
  demand(#items == 8 and not context.inside, "PROBE", context.node)
  add_bytes(tree, "search.nonce", items[4], 16)
  local source = add_end(tree, "search.source", items[5])
  local destination = add_end(tree, "search.destination", items[6])
  demand(items[5].count == items[6].count, "addresses of two families", items[6])
  local who = add_own_record(tree, items[7])
  for _, handle in ipairs(array(items[8], 1, 16, "handles")) do
    local parts, sub = array(handle, 3, 3, "handle"), add_item(tree, "search.handle", handle)
    add_bytes(sub, "mac", parts[1], 16)
    add_uint(sub, "epoch", parts[2])
    add_uint(sub, "generation", parts[3], 2147483648)
  end
  return string.format(" of %s: %s asks for %s, %d groups", who, source, destination, #items[8].items)
end

messages[13] = function(tree, items, _, context)
  demand(#items == 9 and not context.inside, "ANSWER", context.node)
  add_bytes(tree, "search.nonce", items[4], 16)
  add_bytes(tree, "search.answer_nonce", items[5], 16)
  local who = add_own_record(tree, items[6])
  add_uint(tree, "epoch", items[7])
  add_uint(tree, "generation", items[8], 2147483648)
  add_bytes(tree, "mac", items[9], 16)
  return string.format(" of %s, epoch %d generation %d", who, items[7].value, items[8].value)
end

-- Adds one message to a tree, and says in a few words what it is. `inside`: what it came in, if not in a datagram.
add_message = function(tree, tvb, first, count, pinfo, inside)
  local node = read_whole(tvb, first, count)
  local items = array(node, 3, 16, "message")
  add_uint(tree, "version", items[1], 255)
  demand(items[1].value == 1, "another version", items[1])
  add_uint(tree, "suite", items[2], 4)
  add_uint(tree, "type", items[3], 255)
  local type, suite = items[3].value, items[2].value
  demand(MESSAGES[type], "a message that is not known", items[3])
  demand((suite > 0) == (type >= 1 and type <= 4), "suite", items[2])
  local context = {
    tvb = tvb, first = first, node = node, pinfo = pinfo, inside = inside,
    octets = tvb(first, count):raw(), size = inside and count or count + 4,
  }
  return MESSAGES[type] .. messages[type](tree, items, suite, context), type
end

-- A datagram

local MARKER = "\0\0\0\0"

local function is_command(tvb)
  if tvb:len() < 30 then return false end
  local head = tvb(0, 5):raw()
  return head:sub(1, 3) == "\210\132\77" or head == "\216\98\132\64\160"
end

local function is_message(tvb)
  if tvb:len() < 12 or tvb(0, 4):raw() ~= MARKER then return false end
  local head, version, suite, type = tvb(4, 1):uint(), tvb(5, 1):uint(), tvb(6, 1):uint(), tvb(7, 1):uint()
  return head >= 0x84 and head <= 0x89 and version == 1 and suite <= 4 and MESSAGES[type] ~= nil
end

-- Runs what may refuse; what is refused becomes an expert info and a word in the column.
local function guarded(tree, tvb, dissect)
  local fine, said = pcall(dissect)
  if fine then return said end
  if type(said) ~= "table" or not said.malformed then error(said, 0) end
  tree:add_proto_expert_info(experts.malformed, "Malformed: " .. said.malformed)
  return "Malformed: " .. said.malformed
end

function keyfall.dissector(tvb, pinfo, root)
  local length = tvb:len()
  if length == 0 then return 0 end
  pinfo.cols.protocol = "KEYFALL"
  local tree = root:add(keyfall, tvb())
  if length > DATAGRAM_MAX then tree:add_proto_expert_info(experts.length) end
  local said = guarded(tree, tvb, function()
    if length > 4 and tvb(0, 4):raw() == MARKER then
      tree:add(fields.marker, tvb(0, 4))
      return add_message(tree, tvb, 4, length - 4, pinfo)
    end
    demand(is_command(tvb), "neither a marker nor a signed command")
    return add_frame(tree:add(fields.frame, tvb()), tvb, 0, length)
  end)
  tree:append_text(", " .. said)
  pinfo.cols.info = said
  return length
end

local function heuristic(tvb, pinfo, root)
  if not (is_message(tvb) or is_command(tvb)) then return false end
  keyfall.dissector(tvb, pinfo, root)
  return true
end

-- On the port of packets stands Wireshark's own dissector, which keeps what is not ours.
local packets = Proto("keyfall_packets", "Keyfall or UDP-encapsulated IPsec")
local encapsulated = DissectorTable.get("udp.port"):get_dissector(4500)

function packets.dissector(tvb, pinfo, root)
  if is_message(tvb) then return keyfall.dissector(tvb, pinfo, root) end
  local fine, taken = pcall(encapsulated.call, encapsulated, tvb, pinfo, root)
  if fine then return taken end
  root:add(packets, tvb()):add_proto_expert_info(experts.malformed)
  return tvb:len()
end

local ports, registered = DissectorTable.get("udp.port"), {}
ports:add(4500, packets)

local function listen()
  for _, port in ipairs(registered) do ports:remove(port, keyfall) end
  registered = {}
  for _, port in ipairs({ keyfall.prefs.sharing, keyfall.prefs.carrier }) do
    if port > 0 then
      ports:add(port, keyfall)
      registered[#registered + 1] = port
    end
  end
end

keyfall.prefs_changed = listen
listen()
keyfall:register_heuristic("udp", heuristic)
-- A search by ICMP echo is the payload of an echo (18.7).
for _, table in ipairs({ "icmp", "icmpv6" }) do
  pcall(function() keyfall:register_heuristic(table, heuristic) end)
end
