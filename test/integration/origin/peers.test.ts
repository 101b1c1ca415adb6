import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { mkdir, open, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { get as httpGet } from 'node:http'
import { join } from 'node:path'
import { MiB, UPSTREAM_FETCHES_MAX, UPSTREAM_SMALL_BYTES_MAX, silentLogger, systemClock, type Clock, type Logger } from '../../../src/base/index.ts'
import { createHfServer } from '../../../src/hf/index.ts'
import { encodeFileIndex, encodeManifest, hashBlock } from '../../../src/model/index.ts'
import type { OriginModel, ShoalNode } from '../../../src/node/types.ts'
import { keyOf } from '../../../src/origin/known-model.ts'
import { OriginProtocol } from '../../../src/origin/protocol.ts'
import type { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory } from '../../support/files.ts'
import { HostilePeer } from '../../support/hostile-peer.ts'
import { lie } from '../../support/lie.ts'
import { until } from '../../support/until.ts'
import type { Hub } from '../../support/hub.ts'
import { eachWithHub, phaseOf, times } from './hub-cluster.ts'

const FILES = { 'config.json': Buffer.from('{"model_type":"llama"}'), 'model.safetensors': randomBytes(4 * MiB + 3) }
const TOTAL = Object.values(FILES).reduce((sum, { length }) => sum + length, 0)
const NOBODY = { token: undefined }

describe('origin: peers', function () {
  this.timeout(40_000)
  let hub: Hub
  let cluster: Cluster
  let signal: AbortSignal

  eachWithHub(30_000, made => { ({ hub, cluster, signal } = made) })

  const resolve = async (node: ShoalNode): Promise<OriginModel> => {
    const model = await node.origin?.resolve('a/b', 'main', NOBODY)
    assert.ok(model !== undefined)
    return model
  }

  it('one that is killed while it fetches is followed by the next', async () => {
    const nodes = await cluster.spawn(3)
    await cluster.connect()
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 2 * MiB
    const loading = nodes.map(async node => {
      const model = await resolve(node)
      await model.find(signal)
      for (const path of Object.keys(FILES)) await model.verify(path, signal)
    })
    for (const load of loading) load.catch(() => undefined)
    await until('one fetches, and two wait', () => nodes.filter(node => phaseOf(node) === 'fetching').length === 1 && nodes.filter(node => phaseOf(node) === 'waiting').length === 2)
    await until('a third of it came', () => hub.fileBytes > TOTAL / 3)
    const first = nodes.findIndex(node => phaseOf(node) === 'fetching')
    await cluster.kill(nodes[first] as ShoalNode)
    hub.faults.bytesPerSecond = 100 * MiB
    const results = await Promise.allSettled(loading)
    assert.deepEqual(results.map(({ status }, at) => at === first ? 'killed' : status).filter(status => status !== 'killed'), ['fulfilled', 'fulfilled'])
    assert.ok(hub.fileBytes <= 2.05 * TOTAL, `${hub.fileBytes} of ${TOTAL}`)
    const fetched = await Promise.all(cluster.nodes.map(async node => (await node.status()).origin?.counters.fetched ?? 0))
    assert.equal(fetched.reduce((sum, each) => sum + each, 0), 1)
  })

  it('one that was killed goes on with what it has', async () => {
    await using directory = await temporaryDirectory('origin')
    const [node] = await cluster.spawn(1, () => ({ dataDirectory: directory.path })) as [ShoalNode]
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 4 * MiB
    const model = await resolve(node)
    model.find(signal).catch(() => undefined)
    await until('half of it came', () => hub.fileBytes > TOTAL / 2)
    await cluster.kill(node)
    hub.faults.bytesPerSecond = 100 * MiB
    const before = hub.fileBytes
    const [again] = await cluster.spawn(1, () => ({ dataDirectory: directory.path })) as [ShoalNode]
    await (await resolve(again)).find(signal)
    assert.ok(hub.fileBytes - before < TOTAL / 2 + 300_000, `${hub.fileBytes - before} of ${TOTAL}`)
    assert.deepEqual(await readdir(join(directory.path, 'origin')), [])
  })

  for (const [what, files] of [
    ['other files', { 'config.json': { told: Buffer.from('{}'), held: Buffer.from('{}') } }],
    ['the right hashes over other bytes', {
      'config.json': { told: FILES['config.json'], held: Buffer.from(FILES['config.json'].toString().replace('llama', 'LLAMA')) },
      'model.safetensors': { told: FILES['model.safetensors'], held: randomBytes(FILES['model.safetensors'].length) }
    }]
  ] as const) {
    it(`one that has ${what} under the name is not believed`, async () => {
      await using directory = await temporaryDirectory('liar')
      const commit = hub.push('a/b', FILES)
      await mkdir(directory.path, { recursive: true })
      const lied = await lie(directory.path, commit, files)
      const [liar, node] = await cluster.spawn(2, at => at === 0 ? { dataDirectory: directory.path } : {}) as [ShoalNode, ShoalNode]
      assert.deepEqual(liar.models().map(({ cid }) => cid), [lied])
      await cluster.connect()
      const server = createHfServer({ node, host: '127.0.0.1', port: 0 })
      await server.start()
      try {
        for (const [path, content] of Object.entries(FILES)) {
          const answer = await fetch(`${server.url}/a/b/resolve/main/${path}`, { signal })
          assert.deepEqual([answer.status, Buffer.from(await answer.arrayBuffer()).equals(content)], [200, true], path)
        }
        await until('it is published', () => phaseOf(node) === undefined)
      } finally {
        await server.stop()
      }
      assert.deepEqual([hub.fileBytes, node.models().length, node.models()[0]?.cid === lied], [TOTAL, 1, false])
      assert.ok(node.links('a/b').every(({ cid }) => cid !== lied))
    })
  }

  it('one that names other blocks for a second file of the same content is not believed in that', async () => {
    await using directory = await temporaryDirectory('liar')
    const told = randomBytes(100_000)
    const files = { 'a.safetensors': told, 'b.safetensors': told }
    const commit = hub.push('a/b', files)
    await mkdir(directory.path, { recursive: true })
    const lied = await lie(directory.path, commit, { 'a.safetensors': { told, held: told }, 'b.safetensors': { told, held: randomBytes(told.length) } })
    const [, node] = await cluster.spawn(2, at => at === 0 ? { dataDirectory: directory.path } : {}) as [ShoalNode, ShoalNode]
    await cluster.connect()
    const server = createHfServer({ node, host: '127.0.0.1', port: 0 })
    await server.start()
    try {
      for (const path of Object.keys(files)) {
        const answer = await fetch(`${server.url}/a/b/resolve/main/${path}`, { signal })
        assert.ok(Buffer.from(await answer.arrayBuffer()).equals(told), path)
      }
      await until('it is published', () => phaseOf(node) === undefined)
      assert.ok(node.links('a/b').every(({ cid }) => cid !== lied))
    } finally {
      await server.stop()
    }
  })

  it('one that names the same blocks for files of different content is not believed in the second', async () => {
    await using directory = await temporaryDirectory('liar')
    const files = { 'a.txt': randomBytes(50_000), 'b.safetensors': randomBytes(50_000) }
    const commit = hub.push('a/b', files)
    await mkdir(directory.path, { recursive: true })
    // One index for both: the git SHA-1 of the one, the SHA-256 of the other, and the blocks of the first.
    const one = { told: files['b.safetensors'], git: files['a.txt'], held: files['a.txt'] }
    const lied = await lie(directory.path, commit, { 'a.txt': one, 'b.safetensors': one })
    const [, node] = await cluster.spawn(2, at => at === 0 ? { dataDirectory: directory.path } : {}) as [ShoalNode, ShoalNode]
    await cluster.connect()
    const server = createHfServer({ node, host: '127.0.0.1', port: 0 })
    await server.start()
    try {
      for (const [path, content] of Object.entries(files)) {
        const answer = await fetch(`${server.url}/a/b/resolve/main/${path}`, { signal })
        assert.ok(Buffer.from(await answer.arrayBuffer()).equals(content), path)
      }
      await until('it is published', () => phaseOf(node) === undefined)
      assert.ok(node.links('a/b').every(({ cid }) => cid !== lied))
    } finally {
      await server.stop()
    }
  })

  it('a model that somebody added here stays, whatever a peer says that it is', async () => {
    await using own = await temporaryDirectory('own')
    await using liars = await temporaryDirectory('liar')
    const commit = hub.push('a/b', FILES)
    const files = Object.fromEntries(Object.entries(FILES).map(([path, told]) => [path, { told, held: randomBytes(told.length) }]))
    for (const { path } of [own, liars]) await mkdir(path, { recursive: true })
    const mine = await lie(own.path, commit, files)
    assert.equal(await lie(liars.path, commit, files), mine)
    await rm(join(own.path, 'links.json'))
    const [node] = await cluster.spawn(2, at => ({ dataDirectory: [own, liars][at]?.path ?? '' })) as [ShoalNode]
    await cluster.connect()
    const model = await resolve(node)
    assert.equal(await model.find(signal), mine)
    await assert.rejects(model.verify('config.json', signal), { name: 'UpstreamMismatchError' })
    assert.deepEqual(node.models().map(({ cid, published }) => [cid, published]), [[mine, true]])
  })

  it('one that says to have what nobody has keeps nobody from fetching', async () => {
    const logged: string[] = []
    const log = (_details: object, message: string): void => { logged.push(message) }
    const logger: Logger = { debug: log, info: log, warn: log, error: log, child: () => logger }
    const [node] = await cluster.spawn(1, () => ({ logger, settings: { transfer: { providerTimeoutMs: 300 } } })) as [ShoalNode]
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = 2 * MiB
    await using liar = await HostilePeer.start({ swarmKey: cluster.swarmKey, transport: 'tcp' })
    let lies = false
    const index = encodeFileIndex({ version: 1, size: 1, sha256: randomBytes(32), chunker: 'fixed', blocks: [hashBlock(randomBytes(1))], sizes: [1], gitSha1: undefined })
    const cid = encodeManifest({ version: 1, files: [{ path: 'f', size: 1, index: index.cid }] }).cid.toString()
    const protocol = new OriginProtocol({ network: liar.network, clock: systemClock, logger: silentLogger, isBanned: () => false }, {
      asked: () => lies ? [{ peerId: liar.id, state: 'have', cid, bytesDone: 0, bytesTotal: 0 }] : [],
      peeked: async () => undefined, listed: () => []
    })
    await protocol.start()
    try {
      await node.connect(liar.address)
      const finding = (await resolve(node)).find(signal)
      await until('some of it came', () => hub.fileBytes > MiB / 2)
      lies = true
      await finding
      assert.equal(hub.fileBytes, TOTAL)
      assert.ok(!logged.includes('a peer fetches it as well; it goes on'))
      assert.ok(logged.includes('a peer has not what it says'), 'it was heard')
    } finally {
      await protocol.stop()
    }
  })

  it('one that fetches and answers nobody is waited for as long as others hear of it, and hears itself what became of it', async () => {
    const [node] = await cluster.spawn(1) as [ShoalNode]
    hub.push('a/b', FILES)
    const absent = await HostilePeer.start({ swarmKey: cluster.swarmKey, transport: 'tcp' })
    await absent[Symbol.asyncDispose]()
    await using witness = await HostilePeer.start({ swarmKey: cluster.swarmKey, transport: 'tcp' })
    let hears = true
    let bytesDone = 0
    const told: string[] = []
    const protocol = new OriginProtocol({ network: witness.network, clock: systemClock, logger: silentLogger, isBanned: () => false }, {
      asked: (_from, { claim }) => {
        told.push(claim?.state ?? 'nothing')
        return hears ? [{ peerId: absent.id, state: 'fetching', cid: undefined, bytesDone: ++bytesDone, bytesTotal: 2 * TOTAL }] : []
      },
      peeked: async () => undefined, listed: () => []
    })
    await protocol.start()
    try {
      await node.connect(witness.address)
      const finding = (await resolve(node)).find(signal)
      await until('it waits', () => node.origin?.status().fetches[0]?.peerId === absent.id)
      const before = bytesDone
      await until('it asks again', () => bytesDone >= before + 2)
      assert.deepEqual([phaseOf(node), hub.fileBytes], ['waiting', 0])
      hears = false
      await finding
      assert.equal(hub.fileBytes, TOTAL)
      // The last word comes without being asked for: who waits for this node need not.
      await until('the witness hears the end', () => told.at(-1) === 'have')
      assert.deepEqual([told[0], told.includes('fetching')], ['want', true])
    } finally {
      await protocol.stop()
    }
  })

  it('what was compared of a model that is gone says nothing about the next that a peer names', async () => {
    await using directory = await temporaryDirectory('gone')
    await using liars = await temporaryDirectory('liar')
    const commit = hub.push('a/b', FILES)
    for (const { path } of [directory, liars]) await mkdir(path, { recursive: true })
    const gone = await lie(directory.path, commit, { 'config.json': { told: Buffer.from('{}'), held: Buffer.from('{}') } })
    const links = await readFile(join(directory.path, 'links.json'))
    await rm(directory.path, { recursive: true })
    await mkdir(directory.path)
    await writeFile(join(directory.path, 'links.json'), links)
    const told = FILES['config.json']
    const lied = await lie(liars.path, commit, {
      'config.json': { told, held: Buffer.from(told.toString().replace('llama', 'LLAMA')) },
      'model.safetensors': { told: FILES['model.safetensors'], held: FILES['model.safetensors'] }
    })
    let ahead = 0
    const clock: Clock = { ...systemClock, monotonic: () => ahead + systemClock.monotonic() }
    const [node] = await cluster.spawn(1, () => ({ dataDirectory: directory.path, clock, settings: { transfer: { providerTimeoutMs: 300 } } })) as [ShoalNode]
    assert.deepEqual(node.links('a/b').map(({ cid }) => cid), [gone])
    const server = createHfServer({ node, host: '127.0.0.1', port: 0 })
    await server.start()
    try {
      hub.faults.bytesPerSecond = MiB
      const url = `${server.url}/a/b/resolve/main/config.json`
      const answer = fetch(url, { signal })
      answer.catch(() => undefined)
      await until('it is fetched', () => phaseOf(node) === 'fetching')
      ahead += 30_000 // what is linked may be back
      assert.equal((await fetch(url, { method: 'HEAD', signal })).status, 200)
      await cluster.spawn(1, () => ({ dataDirectory: liars.path }))
      await cluster.connect()
      await until('the liar is heard', async () => (await node.status()).origin?.counters.shared === 1)
      hub.faults.bytesPerSecond = 100 * MiB
      // What had come from the Hub was right; now it is asked of the liar.
      assert.equal(await (await answer).text(), told.toString())
      assert.equal(await (await fetch(url, { signal })).text(), told.toString())
      await until('it is published', () => phaseOf(node) === undefined)
      assert.ok(node.links('a/b').every(({ cid }) => cid !== lied && cid !== gone))
    } finally {
      await server.stop()
    }
  })

  it('one that is busy with large models goes on saying that it wants the next, and sees that a peer begins with it; a small one comes meanwhile', async () => {
    const [node] = await cluster.spawn(1) as [ShoalNode]
    const saidBytes = UPSTREAM_SMALL_BYTES_MAX + 1
    const large = Array.from({ length: UPSTREAM_FETCHES_MAX }, (_, index) => `a/large-${index}`)
    for (const name of large) hub.push(name, { 'model.safetensors': randomBytes(MiB) }, { saidBytes })
    hub.push('a/adapter', FILES)
    const key = keyOf({ repo: 'a/b', commit: hub.push('a/b', FILES, { saidBytes }) })
    await using peer = await HostilePeer.start({ swarmKey: cluster.swarmKey, transport: 'tcp' })
    let wanted = 0
    let fetches = false
    const protocol = new OriginProtocol({ network: peer.network, clock: systemClock, logger: silentLogger, isBanned: () => false }, {
      asked: (_from, asked) => {
        if (asked.key === key && asked.claim?.state === 'want') wanted++
        return asked.key === key && fetches ? [{ peerId: peer.id, state: 'fetching', cid: undefined, bytesDone: 1, bytesTotal: 2 * TOTAL }] : []
      },
      peeked: async () => undefined, listed: () => []
    })
    await protocol.start()
    try {
      await node.connect(peer.address)
      hub.faults.stall = { after: 0, times: UPSTREAM_FETCHES_MAX } // for half a minute
      const find = async (name: string): Promise<string | undefined> => await (await node.origin?.resolve(name, 'main', NOBODY))?.find(signal)
      for (const name of large) find(name).catch(() => undefined)
      await until('it fetches as many as it may', () => hub.faults.stall?.times === 0)
      find('a/b').catch(() => undefined)
      await until('it wants another, and says so again and again', () => wanted > 5)
      assert.equal(node.origin?.status().fetches.find(({ repo }) => repo === 'a/b')?.phase, 'asking')
      const cid = await find('a/adapter')
      assert.equal(node.models().find(model => model.cid === cid)?.complete, true)
      assert.equal(node.origin?.status().fetches.find(({ repo }) => repo === 'a/b')?.phase, 'asking')
      fetches = true
      await until('it follows', () => node.origin?.status().fetches.find(({ repo }) => repo === 'a/b')?.peerId === peer.id)
      assert.equal(node.origin?.status().fetches.filter(({ phase }) => phase === 'fetching').length, UPSTREAM_FETCHES_MAX)
    } finally {
      await protocol.stop()
    }
  })

  it('a reader of a slow Hub gets bytes from the first seconds on, at whatever node, and all of them in the end', async () => {
    const nodes = await cluster.spawn(2)
    await cluster.connect()
    hub.push('a/b', FILES)
    hub.faults.bytesPerSecond = MiB
    const servers = nodes.map(node => createHfServer({ node, host: '127.0.0.1', port: 0, clock: times(20) }))
    await Promise.all(servers.map(async server => { await server.start() }))
    try {
      await Promise.all(servers.map(async server => {
        let early = 0
        const { body, silence } = await read(`${server.url}/a/b/resolve/main/model.safetensors`, bytes => { if (hub.fileBytes < TOTAL) early = bytes })
        assert.ok(body.equals(FILES['model.safetensors']))
        // In drops, while the Hub was still sending; clients go after ten silent seconds.
        assert.ok(early > 2_000 && early < MiB && silence < 10_000, `${early} bytes at first, silent for ${silence} ms`)
      }))
      assert.equal(hub.fileBytes, TOTAL)
    } finally {
      await Promise.all(servers.map(async server => { await server.stop() }))
    }
  })

  it('what began to go out and turns out wrong is cut off', async () => {
    const [node] = await cluster.spawn(1) as [ShoalNode]
    hub.push('a/b', FILES)
    Object.assign(hub.faults, { bytesPerSecond: 2 * MiB, wrong: 'model.safetensors' })
    const server = createHfServer({ node, host: '127.0.0.1', port: 0, clock: times(20) })
    await server.start()
    try {
      await assert.rejects(read(`${server.url}/a/b/resolve/main/model.safetensors`), { code: 'ECONNRESET' })
      assert.deepEqual(node.models(), [])
    } finally {
      await server.stop()
    }
  })

  it('a quota that it does not fit is told before anything is fetched', async () => {
    const [node] = await cluster.spawn(1, () => ({ settings: { storage: { quota: MiB } } })) as [ShoalNode]
    hub.push('a/b', FILES)
    await assert.rejects((await resolve(node)).find(signal), { name: 'QuotaExceededError' })
    assert.equal(hub.fileBytes, 0)
  })

  it('a disk that fills up is told, what was begun makes room, and it works when there is some', async function () {
    if (process.getuid?.() !== 0) { this.skip() }
    await using directory = await temporaryDirectory('origin-full')
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'shoal-test', directory.path])
    try {
      const [node] = await cluster.spawn(1, () => ({ dataDirectory: directory.path })) as [ShoalNode]
      hub.push('a/b', FILES)
      hub.faults.bytesPerSecond = 8 * MiB
      const finding = (await resolve(node)).find(signal)
      finding.catch(() => undefined)
      await until('some of it came', () => hub.fileBytes > MiB)
      const somebodyElse = await open(join(directory.path, 'somebody-else'), 'w')
      const filling = (async () => { for (;;) await somebodyElse.writeFile(Buffer.alloc(256 * 1024, 1)) })()
      await assert.rejects(filling, { code: 'ENOSPC' })
      await somebodyElse.close()
      await assert.rejects(finding, { name: 'OutOfSpaceError' })
      assert.deepEqual([await readdir(join(directory.path, 'origin')), node.models()], [[], []])
      await rm(join(directory.path, 'somebody-else'))
      // The same is said for two seconds to whoever asks.
      await until('it works', async () => await (await resolve(node)).find(signal).then(() => true, error => { assert.equal((error as Error).name, 'OutOfSpaceError'); return false }))
      assert.ok(node.models()[0]?.complete)
      await cluster.kill(node)
    } finally {
      execFileSync('umount', ['-l', directory.path])
    }
  })
})

/** `silence` is the longest, in ms. Rejects when the answer breaks. */
async function read (url: string, onBytes: (bytes: number) => void = () => undefined): Promise<{ body: Buffer, silence: number }> {
  return await new Promise((resolve, reject) => {
    const started = performance.now()
    let last = started
    let bytes = 0
    let silence = 0
    httpGet(url, { agent: false }, answer => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => {
        const now = performance.now()
        onBytes(bytes += chunk.length)
        silence = Math.max(silence, now - last)
        last = now
        chunks.push(chunk)
      })
      answer.on('end', () => { resolve({ body: Buffer.concat(chunks), silence }) })
      answer.on('error', reject)
    }).on('error', reject)
  })
}
