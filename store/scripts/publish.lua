-- Publish a batch of one source's events, each at most once. Without events: only answer. Needs entries.lua.
-- KEYS  stream, {stream}:published, {stream}:marks, {stream}:trimmed, {stream}:highest, {stream}:ages,
--       {stream}:nodes
-- ARGV  source, floor, first sequence.
--       The groups that these events don't concern, with blanks between.
--       The SHA-1 of the payload before the first; '' when that is not known.
--       The database that they come from, and its node's number, which it must have; '' for no check.
--       Then for each event: type, payload, further fields (names and values in turn, as MessagePack; '' for none).
-- Answers the last sequence on the stream, the SHA-1 of its payload ('' when that is not known), and the last
-- sequence known to have been published ever, even if the stream was deleted since.
--
-- `published` holds each source's last sequence; its mark holds the id of that entry, and the SHA-1. When the
-- stream was deleted or emptied, none of its entries count as published: the marks then hold `0-0`. When others
-- have removed an entry, nothing is published again: a group that lacks it asks for it. A batch that starts beyond
-- last + 1 would leave a gap: nothing is published, and the answer tells where to go on. Events below `floor` are
-- no longer in the outbox.
--
-- `highest` holds the highest id that a source has given in each table, as `<source>:<table>`, even if the
-- stream has no entry of it any more. Ids are counted up, so the last creation of a batch has the highest.
--
-- When a script fails, its writes stay. So it first tries each kind of command with values that are there already.
-- A missing right then shows before anything is added.
--
-- A group that the events don't concern skips them, unless it has other entries to read first. Reading, logging and
-- acknowledging them would cost a quarter of an invoice's whole cost, at any size. The same holds for groups of
-- other nodes and standbys.
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

-- Whether the entry of a mark is gone without having been trimmed. Another entry may have its id by now.
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

-- Whether the stream was deleted or emptied: it is empty, or has lost every group that had acknowledged something.
-- One of several groups may have been destroyed by hand, and its age stays.
local function is_another()
    if call('XLEN', KEYS[1]) == 0 then
        return true
    end
    local there = {}
    for _, group in ipairs(groups_of(KEYS[1])) do
        there[group['name']] = true
    end
    local known = call('HKEYS', KEYS[6])
    for _, group in ipairs(known) do
        if there[group] then
            return false
        end
    end
    return #known > 0
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
-- The last event on the stream must be the batch's own event with that number, or the one before the batch. Else
-- two databases publish under this name, and these events must not follow the other's.
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

-- Those of these groups that were handed everything, each with its position and its number of read entries.
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
    if read then -- from Redis 7 on, which computes the group's lag from it
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
        if TABLES[kind] then
            created[TABLES[kind]] = payload
        end
    end
end
if entry then
    last, digest = sequence, redis.sha1hex(ARGV[#ARGV - 1])
    call('HSET', KEYS[2], source, format('%.0f', last))
    call('HSET', KEYS[3], source, entry .. ' ' .. digest)
    for table, payload in pairs(created) do
        note_highest(table, payload)
    end
    for _, each in ipairs(stands) do
        set_group(each[1], entry, each[3] and each[3] + added)
    end
end
return {last, digest, math.max(last, ever)}
