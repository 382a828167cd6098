-- SHA-256 (FIPS 180-4), by which a KEY-REQ is named. Wireshark's Lua has none.

local bits = bit32 and { band = bit32.band, bxor = bit32.bxor, rshift = bit32.rshift, ror = bit32.rrotate } or bit
if _VERSION >= "Lua 5.3" then
  -- Operators that older versions cannot even read.
  bits = load([[return {
    band = function(a, b) return a & b end, bxor = function(a, b, c) return a ~ b ~ (c or 0) end,
    rshift = function(a, n) return a >> n end, ror = function(a, n) return (a >> n | a << (32 - n)) & 0xffffffff end }]])()
end
local band, bxor, rshift, ror = bits.band, bits.bxor, bits.rshift, bits.ror

-- The first 32 bits behind the point of the cube (square) roots of the first primes.
local ROOTS, START = {}, {}
do
  local candidate = 2
  while #ROOTS < 64 do
    local prime = true
    for divisor = 2, math.floor(math.sqrt(candidate)) do
      prime = prime and candidate % divisor ~= 0
    end
    if prime then
      ROOTS[#ROOTS + 1] = math.floor((candidate ^ (1 / 3) % 1) * 2 ^ 32)
      if #START < 8 then START[#START + 1] = math.floor((candidate ^ 0.5 % 1) * 2 ^ 32) end
    end
    candidate = candidate + 1
  end
end

return function(octets)
  local length = #octets
  octets = octets .. "\128" .. string.rep("\0", (55 - length) % 64)
  for shift = 7, 0, -1 do
    octets = octets .. string.char(math.floor(length * 8 / 256 ^ shift) % 256)
  end
  local h = {}
  for i = 1, 8 do h[i] = START[i] end
  for block = 1, #octets, 64 do
    local w = {}
    for i = 1, 16 do
      local a, b, c, d = octets:byte(block + 4 * i - 4, block + 4 * i - 1)
      w[i] = a * 16777216 + b * 65536 + c * 256 + d
    end
    for i = 17, 64 do
      local x, y = w[i - 15], w[i - 2]
      local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3)) % 4294967296
      local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10)) % 4294967296
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) % 4294967296
    end
    local v = {}
    for i = 1, 8 do v[i] = h[i] end
    for i = 1, 64 do
      local e, a = v[5], v[1]
      local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25)) % 4294967296
      local choice = bxor(band(e, v[6]), band(4294967295 - e, v[7])) % 4294967296
      local t1 = v[8] + s1 + choice + ROOTS[i] + w[i]
      local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) % 4294967296
      local majority = bxor(band(a, v[2]), band(a, v[3]), band(v[2], v[3])) % 4294967296
      v = { (t1 + s0 + majority) % 4294967296, a, v[2], v[3], (v[4] + t1) % 4294967296, e, v[6], v[7] }
    end
    for i = 1, 8 do h[i] = (h[i] + v[i]) % 4294967296 end
  end
  local digest = {}
  for i = 0, 31 do digest[i + 1] = string.char(math.floor(h[math.floor(i / 4) + 1] / 256 ^ (3 - i % 4)) % 256) end
  return table.concat(digest)
end
