-- Publish a batch of one source's events, each at most once; answer the last sequence that is on the
-- stream, the SHA-1 of its payload ('' when that is not known), and the last that was ever published as
-- far as is known, also when the stream was deleted since. Without events: only answer. Needs entries.lua.
-- KEYS  stream, {stream}:published, {stream}:marks, {stream}:trimmed, {stream}:highest, {stream}:ages,
--       {stream}:nodes
-- ARGV  source, floor, first sequence.
--       The groups that they are of no concern to, with blanks between.
--       The SHA-1 of the payload before the first; '' when that is not known.
--       The database that they come from, and its node's number, which it must have; '' when that is no matter.
--       Then for each event: type, payload, further fields (names and values in turn, as MessagePack; '' for none).
--
-- `published` holds each source's last sequence; its mark tells which entry that became, and the SHA-1. Where
-- the stream was deleted or emptied since, nothing that was on it counts as published: the marks then tell
-- `0-0`. When others have removed an entry, whoever lacks it asks for it, and nothing is published again. A
-- batch that starts beyond last + 1 would leave a gap: nothing is published, and the answer tells where to go
-- on. What lies below `floor` is no longer in the outbox and can't be had.
--
-- `highest` holds the highest id that a source has given in each table, as `<source>:<table>`: known also when
-- the stream has no entry of it any more. Ids are counted up, so the last creation of a batch has the highest.
--
-- What a script has written stays when it fails. So before anything is added, each kind of command that comes
-- after it is tried, with what is there already: a right that is missing shows then.
--
-- A group that they don't concern passes over them, unless it has something else to read before:
-- delivered, acknowledged and logged one by one, they would cost as much again. So do the groups of other nodes and
-- standbys.
local source, floor, first = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function mark_of(each)
    local mark = call('HGET', KEYS[3], each)
    if mark then
        return string.match(mark, '^(%S+) (%S+)$')
    end
end

local function sequence_of(each)
    return call('HGET', KEYS[2], each) or '0'
end

-- Whether the entry of a mark is gone, though it was not trimmed. After a deletion another can get its id.
local function is_gone(entry, of)
    local trimmed = call('GET', KEYS[4])
    if entry == '0-0' or (trimmed and before(entry, trimmed)) then
        return false
    end
    local found = call('XRANGE', KEYS[1], entry, entry)[1]
    local fields = found and found[2] or {}
    for i = 1, #fields, 2 do
        if fields[i] == 'EventId' then
            return fields[i + 1] ~= of .. ':' .. sequence_of(of)
        end
    end
    return true
end

-- Whether the stream is another than it was: it is empty, or has lost a group that had acknowledged something.
local function is_another()
    if call('XLEN', KEYS[1]) == 0 then
        return true
    end
    local there = {}
    for _, group in ipairs(groups_of(KEYS[1])) do
        there[group['name']] = true
    end
    for _, group in ipairs(call('HKEYS', KEYS[6])) do
        if not there[group] then
            return true
        end
    end
    return false
end

local marked, digest = mark_of(source)
if (not marked or is_gone(marked, source)) and is_another() then
    for _, each in ipairs(call('HKEYS', KEYS[3])) do
        local entry, its_digest = mark_of(each)
        if is_gone(entry, each) then
            call('HSET', KEYS[3], each, '0-0 ' .. its_digest)
        end
    end
    marked = mark_of(source)
end
local last = tonumber(sequence_of(source))
local ever = last
if marked == '0-0' then
    last, digest = 0, ''
end
digest = digest or ''
-- The last event here must be the one that the batch has under that number, or that it follows. Else there
-- are two databases of this name, and this one's events don't belong after the other's.
local same = ''
if last == first - 1 then
    same = ARGV[5]
elseif last >= first and ARGV[7 + 3 * (last - first) + 1] then
    same = redis.sha1hex(ARGV[7 + 3 * (last - first) + 1])
end
if same ~= '' and digest ~= '' and same ~= digest then
    return {last, digest, ever}
end
last = math.max(last, floor)
if first > last + 1 then
    return {last, digest, ever}
end

local holder, number = string.match(ARGV[6], '^(%S+) (%d+)$')
if holder and #ARGV > 6 then
    local held, at = string.match(call('HGET', KEYS[7], holder) or '', '^(%d+):%d+ ?(.*)$')
    if held ~= number or at == 'removed' or string.sub(at, 1, 7) == 'standby' then
        return {err = 'NOTHELD the number ' .. number .. ' of its node is not known to be that of ' .. holder}
    end
end

-- Where each of these groups stands that has been handed everything, and how many entries that was.
local function stands_of(names)
    local stands = {}
    for _, group in ipairs(groups_of(KEYS[1])) do
        local delivered = group['last-delivered-id']
        if names[group['name']] and #call('XRANGE', KEYS[1], '(' .. delivered, '+', 'COUNT', 1) == 0 then
            table.insert(stands, {group['name'], delivered, group['entries-read']})
        end
    end
    return stands
end

local function set_group(group, entry, read)
    if read then -- from Redis 7 on, which makes the group's lag of it
        call('XGROUP', 'SETID', KEYS[1], group, entry, 'ENTRIESREAD', read)
    else
        call('XGROUP', 'SETID', KEYS[1], group, entry)
    end
end

local stands = {}
if #ARGV > 6 then
    call('HSET', KEYS[2], source, call('HGET', KEYS[2], source) or '0')
    if ARGV[4] ~= '' then
        local names = {}
        for name in string.gmatch(ARGV[4], '%S+') do
            names[name] = true
        end
        stands = stands_of(names)
    end
    for _, each in ipairs(stands) do
        set_group(each[1], each[2], each[3])
    end
end

local TABLES = {
    CustomerCreated = 'customer', InvoiceCreated = 'invoice', CreditCreated = 'credit', AccountCreated = 'account',
}

local function note_highest(table, payload)
    local id = string.match(payload, '^{"id":"(%d+)"')
    local field = source .. ':' .. table
    local known = call('HGET', KEYS[5], field) or ''
    if id and (#id > #known or (#id == #known and id > known)) then -- as text: they may have 19 digits
        call('HSET', KEYS[5], field, id)
    end
end

local stream, sequence, entry, added, created = KEYS[1], first - 1, nil, 0, {}
for i = 7, #ARGV, 3 do
    sequence = sequence + 1
    if sequence > last then
        local kind, payload, further = ARGV[i], ARGV[i + 1], ARGV[i + 2]
        local id = format('%s:%.0f', source, sequence)
        if further == '' then
            entry = call('XADD', stream, '*', 'EventTypeName', kind, 'Payload', payload, 'EventId', id)
        else
            entry = call('XADD', stream, '*', 'EventTypeName', kind, 'Payload', payload, 'EventId', id,
                unpack(cmsgpack.unpack(further)))
        end
        added = added + 1
        created[kind] = payload
    end
end
if entry then
    last, digest = sequence, redis.sha1hex(ARGV[#ARGV - 1])
    call('HSET', KEYS[2], source, format('%.0f', last))
    call('HSET', KEYS[3], source, entry .. ' ' .. digest)
    for kind, table in pairs(TABLES) do
        if created[kind] then
            note_highest(table, created[kind])
        end
    end
    for _, each in ipairs(stands) do
        set_group(each[1], entry, each[3] and each[3] + added)
    end
end
return {last, digest, math.max(last, ever)}
