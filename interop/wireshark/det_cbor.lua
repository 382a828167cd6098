-- A reader of deterministic CBOR (docs/PROTOCOL.md section 1) that keeps where each item stands. A node has tvb, kind, at,
-- length, and: uint, negative: value (and `wide`, a UInt64, where its head has 8 octets); bytes, text: first, count;
-- array, map: items; tag: value, item. What is refused is an error { malformed = what, node = where }.

local DEPTH_MAX = 12

local function malformed(what, node)
  error({ malformed = what, node = node }, 0)
end

local function demand(condition, what, node)
  if not condition then malformed(what, node) end
  return node
end

local MAJORS = { [0] = "uint", "negative", "bytes", "text", "array", "map", "tag", "simple" }

local read_item

-- The head of an item: its kind, its number, where it ends.
local function read_head(tvb, at, stop)
  demand(at < stop, "the message is cut short")
  local first = tvb(at, 1):uint()
  local kind, info = MAJORS[math.floor(first / 32)], first % 32
  local node = { tvb = tvb, at = at, kind = kind, value = info, info = info }
  if info < 24 then return node, at + 1 end
  demand(info <= 27, "an indefinite length or a reserved head", node)
  local size = 2 ^ (info - 24)
  demand(at + 1 + size <= stop, "the message is cut short", node)
  local range = tvb(at + 1, size)
  if size == 8 then
    node.wide = range:uint64()
    node.value = tvb(at + 1, 4):uint() * 4294967296 + tvb(at + 5, 4):uint()
    demand(node.value >= 4294967296, "a number in a longer form than needed", node)
  else
    node.value = range:uint()
    demand(node.value >= ({ 24, 256, [4] = 65536 })[size], "a number in a longer form than needed", node)
  end
  return node, at + 1 + size
end

local function read_items(node, tvb, at, stop, depth, count)
  node.items = {}
  demand(count <= stop - at, "the message is cut short", node)
  for index = 1, count do
    node.items[index], at = read_item(tvb, at, stop, depth + 1)
  end
  return at
end

read_item = function(tvb, at, stop, depth)
  demand(depth <= DEPTH_MAX, "nested too deeply")
  local node, next_at = read_head(tvb, at, stop)
  local kind = node.kind
  if kind == "bytes" or kind == "text" then
    demand(node.value <= stop - next_at, "the message is cut short", node)
    node.first, node.count = next_at, node.value
    next_at = next_at + node.value
  elseif kind == "array" then
    next_at = read_items(node, tvb, next_at, stop, depth, node.value)
  elseif kind == "map" then
    next_at = read_items(node, tvb, next_at, stop, depth, node.value * 2)
    local last = -1
    for index = 1, #node.items, 2 do
      local key = node.items[index]
      demand(key.kind == "uint" and key.value > last, "map keys that do not rise", node)
      last = key.value
    end
  elseif kind == "tag" then
    node.item, next_at = read_item(tvb, next_at, stop, depth + 1)
  elseif kind == "simple" then
    demand(node.info >= 20 and node.info <= 22, "a value that no message has", node)
  end
  node.length = next_at - at
  return node, next_at
end

-- The one item that fills a range.
local function read_whole(tvb, first, count)
  local node, next_at = read_item(tvb, first, first + count, 0)
  demand(next_at == first + count, "something follows the end", node)
  return node
end

local function is_null(node)
  return node.kind == "simple" and node.info == 22
end

local function array(node, least, most, what)
  demand(node and node.kind == "array" and #node.items >= least and #node.items <= (most or least), what, node)
  return node.items
end

-- A map as a table from key to node; nothing but what is wanted or optional.
local function map(node, wanted, optional, what)
  demand(node and node.kind == "map", what, node)
  local found, known = {}, {}
  for _, key in ipairs(wanted) do known[key] = true end
  for _, key in ipairs(optional) do known[key] = true end
  for index = 1, #node.items, 2 do
    local key = node.items[index].value
    demand(known[key], what .. ": a field that is not known", node)
    found[key] = node.items[index + 1]
  end
  for _, key in ipairs(wanted) do demand(found[key], what .. ": a field is missing", node) end
  return found
end

local function tagged(node, tag, length, what)
  demand(node.kind == "tag" and node.value == tag, what, node)
  return array(node.item, length, length, what)
end

local function octets_of(node)
  return node.count == 0 and "" or node.tvb(node.first, node.count):raw()
end

-- The octets that an item takes; of an octet string what stands in it.
local function range_of(node)
  if node.kind == "bytes" then return node.tvb(node.first, node.count) end
  return node.tvb(node.at, node.length)
end

return {
  demand = demand, read_whole = read_whole, is_null = is_null, array = array, map = map, tagged = tagged,
  octets_of = octets_of, range_of = range_of,
}
