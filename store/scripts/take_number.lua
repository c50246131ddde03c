-- Take a node's number for a database, unless another database of its service has it. Needs registry.lua.
-- KEYS  {stream}:nodes: by database, its number and changes, as `1:0`, and then its service's URL.
--       `removed` stands there instead if it is gone for good. `standby` stands before the URL if it follows the
--       one that has the number. The field `since` has the time (ms) since which this hash exists.
--       {stream}:leases: by database, the place where it is at work, and the time (ms) of the last renewal
--       {stream}:published: shows which databases published before there were numbers
-- ARGV  database, number, URL.
--       How long the hash must have existed before a new number is taken (ms).
--       The place of this database, '' for none; how long a lease lasts (ms).
--       Whose number it may take: '' nobody's, 'idle' that of a database not at work, 'any' anybody's. 'standby'
--       if it follows the one that has the number.
--       `moved` if it was at work in another place, and may still be; else ''.
--       Then the hash of nodes as the database knows it: names and values in turn.
-- Answers a result, and a detail:
--       `taken`.
--       `standby`, and the database that has the number.
--       `wait`, and for how many milliseconds.
--       `free`: a moved database finds nobody at work. Nothing was taken.
--       `another`, and the database that has the number.
--       `elsewhere`: this database is at work in another place. `busy`: the one that it would replace is at work.
--       The detail: for how many milliseconds that lease lasts, when it was renewed, and which database has it.
--
-- Databases tell Redis again what it has lost. So a number without a known holder may belong to a database that
-- has not told yet.
--
-- Two databases that published before there were numbers may share one. The entry that this database knows already
-- is put back beside the other's.
local database, number, url, wait = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local place, lease, may_replace, moved = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8] ~= ''

call('HDEL', KEYS[2], '') -- so that a full Redis takes the other writes, too: see note_age.lua
local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local since = tonumber(call('HGET', KEYS[1], 'since') or '')
if not since or since > now then -- by a clock that was ahead
    since = now
    call('HSET', KEYS[1], 'since', string.format('%.0f', now))
end

-- The place of a database's lease, if it still holds; for how long, and when it was renewed.
local function work_of(name)
    local where, said = string.match(call('HGET', KEYS[2], name) or '', '^(%S+) (%d+)$')
    local ago = now - tonumber(said or now)
    if where and ago >= 0 and ago < lease then
        return where, string.format('%.0f %s %s', lease - ago, said, name)
    end
end

local function other_holder()
    return holders(service_of(database), number, {[database] = true})[1]
end

if place ~= '' then
    local where, detail = work_of(database)
    if where and where ~= place then
        return answer('elsewhere', detail)
    elseif moved and not where then
        return answer('free', '')
    end
end

local known = {}
for i = 9, #ARGV, 2 do
    known[ARGV[i]] = true
end
for i = 9, #ARGV, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    local held, at, changes = read(value)
    local _, _, here = read_of(name)
    local service = service_of(name)
    if service and changes > here and (not has_number(at) or #holders(service, held, known) == 0) then
        call('HSET', KEYS[1], name, value)
    end
end

local function is_at_work()
    if place ~= '' then
        call('HSET', KEYS[2], database, place .. string.format(' %.0f', now))
    end
end

local held, at, changes = read_of(database)
local is_standby = held == number and string.sub(at, 1, 7) == 'standby'
if is_standby or (may_replace == 'standby' and not (held == number and has_number(at))) then
    if at ~= standby(url) then
        write(database, number, standby(url), changes + 1)
    end
    is_at_work()
    return answer('standby', other_holder() or '')
end

-- If two have the number, one was promoted while Redis did not know of the other.
local rival = held == number and other_holder()
if rival then
    local _, _, theirs = read_of(rival)
    if theirs >= changes + PROMOTION then
        write(database, number, standby(url), theirs)
        is_at_work()
        return answer('standby', rival)
    end
end

local has_it = held == number and has_number(at)
local other = not has_it and other_holder()
local had_published = not held and tonumber(call('HGET', KEYS[3], database) or '0') > 0
if other and not had_published then
    local _, detail = work_of(other)
    if may_replace == '' then
        return answer('another', other)
    elseif may_replace == 'idle' and detail then
        return answer('busy', detail)
    end
    local _, _, theirs = read_of(other)
    write(other, number, 'removed', theirs + 1)
elseif not has_it and not other and now - since < wait then
    return answer('wait', string.format('%.0f', wait - (now - since)))
end
if not has_it or at ~= url then
    write(database, number, url, changes + 1)
end
is_at_work()
return answer('taken', '')
