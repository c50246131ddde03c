-- Take a node's number for a database, and see that no other database of its service has it.
-- KEYS  {stream}:nodes: from database, as `<service>@<identity>`, to its number, how often that was changed, and
--       its service's URL: `1:0 http://…`. In the place of the URL `removed`, when it is gone for good. `since`
--       tells since when (ms) there is such a hash.
--       {stream}:leases: from database to the place where it is at work, and when that was said last (ms)
-- ARGV  database, number, URL, how long the hash must have been there before a new number is taken (ms),
--       the database that was in its place before ('' for none), 'anyway' where it may take any other's place,
--       the place where this database is ('' when that is no matter), how long that holds unless it is said again (ms),
--       then what the database knows of the hash of nodes: names and values in turn
-- Answers `taken`; or `wait` and for how many milliseconds; or `another` and which database has the number; or
-- `elsewhere`, as this database is at work in another place too, for how many milliseconds that holds, and when
-- it was said. Then the hash of nodes, names and values in turn.
--
-- What Redis has lost comes back from whoever knows it: of two the one that was changed more often. So a number
-- that nobody here is known to have may be somebody's who has not told yet.
local KEYS, ARGV, call = KEYS, ARGV, redis.call
local database, number, url, wait = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local former, anyway = ARGV[5], ARGV[6] ~= ''

local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local since = tonumber(call('HGET', KEYS[1], 'since') or '')
if not since or since > now then -- by a clock that was ahead
    since = now
    call('HSET', KEYS[1], 'since', string.format('%.0f', now))
end

local place, lease = ARGV[7], tonumber(ARGV[8])
if place ~= '' then
    local theirs, said = string.match(call('HGET', KEYS[2], database) or '', '^(%S+) (%d+)$')
    local ago = now - tonumber(said or now)
    if theirs and theirs ~= place and ago >= 0 and ago < lease then
        return {'elsewhere', string.format('%.0f %s', lease - ago, said)}
    end
    call('HSET', KEYS[2], database, place .. string.format(' %.0f', now))
end

local function read(value)
    local held, changes, at = string.match(value or '', '^(%d+):(%d+) ?(.*)$')
    return held, at, tonumber(changes or -1)
end

local function write(name, held, at, changes)
    call('HSET', KEYS[1], name, held .. ':' .. string.format('%.0f', changes) .. (at == '' and '' or ' ' .. at))
end

-- Who has a number, of the databases of one service; not the one that is named.
local function holder(service, wanted, but)
    local all = call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
        local held, at = read(all[i + 1])
        if held == wanted and at ~= 'removed' and all[i] ~= but and string.match(all[i], '^(%l+)@') == service then
            return all[i]
        end
    end
end

for i = 9, #ARGV, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    local known, at, changes = read(value)
    local _, _, here = read(call('HGET', KEYS[1], name))
    local service = string.match(name, '^(%l+)@')
    if service and changes > here and (at == 'removed' or not holder(service, known, name)) then
        call('HSET', KEYS[1], name, value)
    end
end

local function answer(what, detail)
    local all = {what, detail}
    for _, each in ipairs(call('HGETALL', KEYS[1])) do
        table.insert(all, each)
    end
    return all
end

local other = holder(string.match(database, '^(%l+)@'), number, database)
if other then
    if other ~= former and not anyway then
        return answer('another', other)
    end
    local _, _, changes = read(call('HGET', KEYS[1], other))
    write(other, number, 'removed', changes + 1)
end
local held, at, changes = read(call('HGET', KEYS[1], database))
if not other and (held ~= number or at == 'removed') and now - since < wait then
    return answer('wait', string.format('%.0f', wait - (now - since)))
end
if held ~= number or at ~= url then
    write(database, number, url, changes + 1)
end
return answer('taken', '')
