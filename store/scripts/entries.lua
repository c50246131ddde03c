-- Entries and groups of a stream, for the scripts that this is put before.
local KEYS, ARGV, call, format = KEYS, ARGV, redis.call, string.format -- globals cost as much as a short command

-- Whether an entry's id is lower than another's.
local function before(a, b)
    local am, as = string.match(a, '^(%d+)-(%d+)$')
    local bm, bs = string.match(b, '^(%d+)-(%d+)$')
    am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
    return am < bm or (am == bm and as < bs)
end

-- Redis's information on each group of a stream, by field name; empty without a stream.
local function groups_of(stream)
    local groups = {}
    if call('EXISTS', stream) == 0 then
        return groups
    end
    for _, info in ipairs(call('XINFO', 'GROUPS', stream)) do
        local group = {}
        for i = 1, #info, 2 do
            group[info[i]] = info[i + 1]
        end
        table.insert(groups, group)
    end
    return groups
end
