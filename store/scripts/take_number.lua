-- Take a node's number for a database, unless another database of its service has it. Needs registry.lua.
-- KEYS  {stream}:nodes: by database, its number and changes, as `1:0`, and behind that its service's URL;
--       `removed` when it is gone for good; `standby`, before the URL, when it follows the one that has the number.
--       `since` says since when (ms) there is such a hash.
--       {stream}:leases: by database, the place where it is at work, and when that was said last (ms)
--       {stream}:published, which tells who has published before there were numbers
-- ARGV  database, number, URL.
--       How long the hash must have been there before a new number is taken (ms).
--       The place where this database is, '' when that is no matter; how long a lease lasts (ms).
--       Whose number it may take: '' nobody's, 'idle' that of one that is not at work, 'any' anybody's. 'standby'
--       where it follows the one that has the number.
--       `moved` where it was at work in another place, and may still be there; else ''.
--       Then what the database knows of the hash of nodes: names and values in turn.
-- Answers what was found, and a detail:
--       `taken`.
--       `standby`, and which database has the number.
--       `wait`, and for how many milliseconds.
--       `free`: a database that was moved finds nobody at work, and has taken nothing.
--       `another`, and which database has the number.
--       `elsewhere`, as this database is at work in another place, or `busy`, as the one is that it is to replace:
--       for how many milliseconds that lease lasts, when it was renewed, and which database has it.
--
-- What Redis has lost comes back from those who know it. So a number that nobody here is known to have may be
-- that of a database which has not told yet.
--
-- Two databases that published before there were numbers may share one: what this database knows already is put
-- back beside the other.
local database, number, url, wait = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local place, lease, may_replace, moved = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8] ~= ''

local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local since = tonumber(call('HGET', KEYS[1], 'since') or '')
if not since or since > now then -- by a clock that was ahead
    since = now
    call('HSET', KEYS[1], 'since', string.format('%.0f', now))
end

-- Where a database is at work, as that was said lately: then for how long it holds, and when it was said.
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

-- Of two that have the number, one was promoted while Redis knew nothing of the other.
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
