import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { configKeys, environmentLayer, environmentName, flagLayer, readConfigFile, resolveConfig, type Layer } from '../../../src/cli/config.ts'
import { parseDuration, parseReplicas, parseSize, showDuration, showSize } from '../../../src/cli/units.ts'
import { defaultSettings, resolveSettings } from '../../../src/node/settings.ts'
import { defaultReplication } from '../../../src/replication/settings.ts'

const DEFAULT_FILE = new URL('../../../config/default.jsonc', import.meta.url).pathname
const README = new URL('../../../config/README.md', import.meta.url).pathname

const set = (...pairs: string[]): Layer => flagLayer({ set: pairs })

/** What the error says, and that it does not say the secret. */
const untold = (message: RegExp) => (error: Error): boolean => error.name === 'ConfigError' && message.test(error.message) && !/hush/i.test(error.message)

describe('cli: configuration', () => {
  let directory: string
  before(async () => { directory = await mkdtemp(join(tmpdir(), 'shoal-config-')) })
  after(async () => { await rm(directory, { recursive: true }) })

  it('is explained in config/default.jsonc, key by key, with the defaults the program has', async () => {
    const file = await readConfigFile(DEFAULT_FILE)
    assert.deepEqual([...file.values.keys()].filter(key => !key.startsWith('labels')).sort(), configKeys.filter(key => key !== 'labels').sort())
    const { node, daemon } = resolveConfig([file])
    assert.deepEqual(resolveSettings(node), defaultSettings)
    assert.deepEqual(daemon, resolveConfig([]).daemon)
  })

  it('is listed in config/README.md, with its variables', async () => {
    const readme = await readFile(README, 'utf8')
    for (const key of configKeys) assert.match(readme, new RegExp(`\\| \`${key}\` \\|.*\`${environmentName(key)}\``), key)
  })

  it('comes from flags over environment over file', async () => {
    const path = join(directory, 'a.json')
    await writeFile(path, '{\n// a comment\n"storage": {"quota": "1GiB", "slots": 8, "syncBytes": 8388608,}, "labels": {"zone": "a", "rack": "1"}}')
    const environment = environmentLayer({ SHOAL_SET_STORAGE_QUOTA: '2GiB', SHOAL_SET_STORAGE_SLOTS: '9', SHOAL_SET_LABELS: 'rack=2', HOME: '/' })
    const { node } = resolveConfig([await readConfigFile(path), environment, flagLayer({ set: ['storage.quota=3GiB'], label: ['host=h'], listen: ['/ip4/127.0.0.1/tcp/0'] })])
    assert.deepEqual(node.storage, { quota: 3 * 2 ** 30, slots: 9, syncBytes: 8 * 2 ** 20 })
    assert.deepEqual(node.labels, { zone: 'a', rack: '2', host: 'h' })
    assert.deepEqual(node.listen, ['/ip4/127.0.0.1/tcp/0'])
  })

  it('says of a section that it is one', () => {
    for (const [section, example] of [['storage', 'storage.quota'], ['hf', 'hf.listen'], ['replication.grace', 'replication.grace.lastCopy'], ['labels', 'labels.zone']]) {
      assert.throws(() => resolveConfig([set(`${section}=1`)]), { name: 'ConfigError', message: `${section} (from the command line) is a section; set one of its keys, such as ${example}; config/README.md lists them all` })
    }
  })

  it('takes every kind of value as text', () => {
    const { node, daemon } = resolveConfig([set(
      'storage.quota=none', 'network.openSwarm=yes', 'announce.periodMs=2h', 'announce.mode=shards', 'lane.bytesPerSecond.up=100MB', 'lane.bytesPerSecond.background=08:00-20:30=16MiB,22:00-6:15=1GiB',
      'listen=/ip4/127.0.0.1/tcp/0, /ip6/::1/tcp/0', 'api.tcp.port=0', 'api.tcp.hosts=a,b', 'labels.zone=a=b'
    )])
    assert.equal(resolveSettings(node).storage.quota, undefined)
    assert.deepEqual(node.transfer?.backgroundRates, [{ from: 480, to: 1230, bytesPerSecond: 16 * 2 ** 20 }, { from: 1320, to: 375, bytesPerSecond: 2 ** 30 }])
    assert.deepEqual([node.network?.openSwarm, node.announce?.periodMs, node.announce?.mode, node.transfer?.uploadBytesPerSecond], [true, 7_200_000, 'shards', 1e8])
    assert.deepEqual(node.listen, ['/ip4/127.0.0.1/tcp/0', '/ip6/::1/tcp/0'])
    assert.deepEqual([daemon.api.tcp.port, daemon.api.tcp.hosts], [0, ['a', 'b']])
    assert.deepEqual(node.labels, { zone: 'a=b' })
  })

  it('names what replication does as operators say it, and as the node takes it', () => {
    const { node } = resolveConfig([set(
      'storage.donate=500GiB', 'replication.min=1', 'replication.target=2', 'replication.max=2', 'replication.grace.lastCopy=0s',
      'replication.grace.twoCopies=200ms', 'replication.grace.default=10m', 'replication.settle=200ms', 'replication.proofTtl=200ms', 'replication.suspect=200ms',
      'replication.down=300ms', 'replication.rankDelay=0s', 'replication.brake.share=50%', 'replication.brake.window=2s', 'replication.brake.max=7d',
      'replication.trimEvery=200ms', 'replication.trimProof=200ms', 'replication.disputedEvery=200ms', 'replication.repairBytesPerSecond=2GiB', 'replication.pullsMax=1', 'replication.offersMax=2',
      'scrub.period=200ms', 'scrub.suspectBlocks=3', 'replication.rebalance.share=90%', 'replication.rebalance.every=2s'
    )])
    assert.deepEqual(node.storage, { donate: 500 * 2 ** 30 })
    assert.deepEqual(node.replication, {
      min: 1,
      target: 2,
      max: 2,
      graceLastCopyMs: 0,
      graceTwoCopiesMs: 200,
      graceDefaultMs: 600_000,
      settleMs: 200,
      proofTtlMs: 200,
      suspectMs: 200,
      downMs: 300,
      rankDelayMs: 0,
      brakeShare: 0.5,
      brakeWindowMs: 2_000,
      brakeMaxMs: 604_800_000,
      trimEveryMs: 200,
      trimProofMs: 200,
      disputedEveryMs: 200,
      repairBytesPerSecond: 2 ** 31,
      pullsMax: 1,
      offersMax: 2,
      rebalanceShare: 0.9,
      rebalanceEveryMs: 2_000,
      scrubPeriodMs: 200,
      scrubSuspectBlocks: 3
    })
    assert.deepEqual(Object.keys(node.replication ?? {}).sort(), Object.keys(defaultReplication).sort())
    assert.equal(resolveConfig([environmentLayer({ SHOAL_SET_REPLICATION_GRACE_LAST_COPY: '2s' })]).node.replication?.graceLastCopyMs, 2_000)
    assert.equal(resolveConfig([]).node.replication, undefined)
  })

  it('holds min <= target <= max, with the defaults for what is not set', async () => {
    const wrong: Array<[string[], RegExp]> = [
      [['replication.min=4'], /^replication\.min \(4\) must not be more than replication\.target \(3\)/],
      [['replication.target=1'], /^replication\.min \(2\) must not be more than replication\.target \(1\)/],
      [['replication.target=6'], /^replication\.target \(6\) must not be more than replication\.max \(5\)/],
      [['replication.min=5', 'replication.target=5', 'replication.max=4'], /replication\.max \(4\)/]
    ]
    for (const [pairs, message] of wrong) assert.throws(() => resolveConfig([set(...pairs)]), { name: 'ConfigError', message }, pairs.join(' '))
    const path = join(directory, 'replication.json')
    await writeFile(path, '{"replication": {"target": 7, "max": 7, "grace": {"default": "1h"}}, "scrub": {"period": "1d"}}')
    // A later layer that breaks the order of an earlier one is told as well.
    const file = await readConfigFile(path)
    assert.deepEqual(resolveConfig([file]).node.replication, { target: 7, max: 7, graceDefaultMs: 3_600_000, scrubPeriodMs: 86_400_000 })
    assert.throws(() => resolveConfig([file, set('replication.max=6')]), { name: 'ConfigError' })
    assert.deepEqual(resolveConfig([set('replication.min=0', 'replication.target=0', 'replication.max=0')]).node.replication, { min: 0, target: 0, max: 0 })
  })

  it('names the nearest known key for an unknown one, wherever it stands', async () => {
    const unknown = (layer: () => Layer, near: string): void => {
      assert.throws(() => resolveConfig([layer()]), error => error instanceof Error && error.name === 'ConfigError' && error.message.includes(near))
    }
    unknown(() => set('storage.qouta=1'), 'storage.quota')
    unknown(() => set('quota=1'), 'storage.quota')
    unknown(() => set('replication.grace.lastcopy=1s'), 'replication.grace.lastCopy')
    unknown(() => set('replication.scrub.period=1d'), 'scrub.period')
    unknown(() => set('Listen=1'), 'listen')
    unknown(() => set('__proto__.x=1'), 'unknown')
    unknown(() => set('constructor=1'), 'unknown')
    unknown(() => environmentLayer({ SHOAL_SET_STORAGE_QOUTA: '1' }), 'SHOAL_SET_STORAGE_QUOTA')
    for (const [text, near] of [['{"storge":{}}', 'storage'], ['{"storage":{"qouta":1}}', 'storage.quota'], ['{"storage":7}', 'unknown']]) {
      const path = join(directory, 'unknown.json')
      await writeFile(path, text ?? '')
      const file = await readConfigFile(path)
      unknown(() => file, near ?? '')
    }
  })

  it('refuses values of the wrong kind or out of bounds, naming key and source', () => {
    for (const pair of [
      'storage.quota=-1', 'storage.quota=1XB', 'storage.quota=1e9', 'storage.slots=0', 'storage.slots=2.5', 'storage.directIo=maybe', 'announce.periodMs=72h',
      'listen=nowhere', 'listen=/ip4/127.0.0.1/tcp/99999', 'network.openSwarm=perhaps', 'api.tcp.port=65536', 'log.level=loud',
      'storage.donate=-1', 'storage.donate=none', 'replication.min=-1', 'replication.target=65', 'replication.max=2.5', 'replication.settle=soon', 'replication.proofTtl=0s',
      'replication.brake.share=0', 'replication.brake.share=2', 'replication.brake.share=101%', 'replication.brake.share=1e-1', 'replication.repairBytesPerSecond=none', 'replication.pullsMax=0', 'scrub.period=2y', 'labels.=x', 'labels.__proto__=x'
    ]) {
      const key = pair.slice(0, pair.indexOf('='))
      assert.throws(() => resolveConfig([set(pair)]), error => error instanceof Error && error.name === 'ConfigError' && error.message.includes('command line') && (key.startsWith('labels') || error.message.includes(key)), pair)
    }
    assert.throws(() => resolveConfig([set(`labels.zone=${'ü'.repeat(33)}`)]), { name: 'ConfigError', message: /64 bytes at most/ })
    const labels = Array.from({ length: 17 }, (_, i) => `labels.l${i}=x`)
    assert.throws(() => resolveConfig([set(...labels)]), { name: 'ConfigError', message: /17 labels are set/ })
    assert.equal(Object.keys(resolveConfig([set(...labels.slice(1))]).node.labels ?? {}).length, 16)
    assert.throws(() => set('=1'), { name: 'ConfigError' })
    assert.throws(() => set('storage.quota'), { name: 'ConfigError' })
  })

  it('tells no secrets with what is wrong', async () => {
    const path = join(directory, 'secret.json')
    await writeFile(path, '{"join": ["shoal1hush", 7], "hf": {"upstream": "https://me:hush@hub.example"}}')
    const { values } = await readConfigFile(path)
    const many = Array.from({ length: 65 }, () => 'shoal1hush')
    const wrong: Array<[unknown, RegExp]> = [
      [values.get('join'), /^entry 2 of join must be text \(from x; /],
      [{ first: 'shoal1hush' }, /^join must be a list \(from x; /],
      [many.join(','), /^join must have 64 entries at most \(from x; /],
      [['shoal1hush', ''], /^entry 2 of join must not be empty /]
    ]
    for (const [value, message] of wrong) assert.throws(() => resolveConfig([{ source: 'x', values: new Map([['join', value]]) }]), untold(message))
    assert.throws(() => resolveConfig([{ source: 'x', values: new Map([['hf.upstream', values.get('hf.upstream')]]) }]), untold(/^hf\.upstream must be an address /))
    assert.throws(() => set('shoal1hush'), untold(/--join/))
    assert.throws(() => set('SHOAL1HUSH'), untold(/--join/))
  })

  it('refuses files that are missing, no JSON, or no object', async () => {
    for (const text of ['', '{', '[]', 'null', '"x"', '{"a":1}}']) {
      const path = join(directory, 'bad.json')
      await writeFile(path, text)
      await assert.rejects(readConfigFile(path), { name: 'ConfigError' }, text)
    }
    await assert.rejects(readConfigFile(join(directory, 'missing.json')), { name: 'ConfigError' })
  })
})

describe('cli: units', () => {
  it('read what they write', () => {
    fc.assert(fc.property(fc.nat({ max: 2 ** 45 }), bytes => { assert.equal(parseSize(showSize(bytes)), bytes) }))
    fc.assert(fc.property(fc.nat({ max: 2 ** 40 }), ms => { assert.equal(parseDuration(showDuration(ms)), ms) }))
  })

  it('know binary and decimal, and fractions', () => {
    assert.deepEqual(['4096', '1KiB', '1kB', '1.5GiB', '80 MB', '2T'].map(parseSize), [4096, 1024, 1000, 1.5 * 2 ** 30, 80e6, 2 ** 41])
    assert.deepEqual(['250', '250ms', '2s', '10m', '1.5h', '2d'].map(parseDuration), [250, 250, 2000, 600e3, 5_400e3, 172_800e3])
  })

  it('know how many replicas make sense', () => {
    assert.deepEqual([undefined, '0', '3', '64'].map(parseReplicas), [undefined, 0, 3, 64])
    for (const text of ['', '-1', '65', '2.5', '1e1', 'three', '0x3', ' 3', '999999']) assert.throws(() => parseReplicas(text), { name: 'UsageError', message: /--replicas is a whole number, 0 to 64/ }, text)
  })

  it('refuse the rest', () => {
    for (const text of ['', '-1', '1 XiB', '1e3', 'GiB', '1.2.3', '0x10', '99999999TiB', '1 toString', '9'.repeat(400)]) assert.throws(() => parseSize(text), { name: 'UsageError' }, text)
    for (const text of ['', '-1s', '1y', 's', '1 constructor']) assert.throws(() => parseDuration(text), { name: 'UsageError' }, text)
  })
})
