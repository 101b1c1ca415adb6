import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { MiB, seededRandom, type Random } from '../../src/base/index.ts'
import { NodeProcess } from '../../scripts/lib/spawn-node.ts'
import { writeSyntheticModel } from '../../scripts/lib/synthetic-model.ts'

/** 200 kills by default: 100 of loaders, 100 of providers. SHOAL_KILL_ROUNDS and SHOAL_SEED change and replay it. */
const ROUNDS = Number(process.env.SHOAL_KILL_ROUNDS ?? 200)
const SEED = Number(process.env.SHOAL_SEED ?? Date.now() % 1_000_000)
/** About thirty blocks. */
const MODEL_BYTES = 12 * MiB
const SHARDS = 12
/** A load takes half a second and is recorded in ten parts, so that kills come in the middle of it and not after it. */
const BYTES_PER_SECOND = 24 * MiB
const SYNC_INTERVAL_MS = 50
/** What a load takes beside its bytes: finding who has them. */
const FINDING_MS = 200
const ROUND_MS_MAX = 90_000
/** Of a process that lives for a second, nearly all that starting makes survives: V8 would copy it twice. A sixth of the start. */
const SHORT_LIVED = ['--min-semi-space-size=32', '--max-semi-space-size=32']

describe(`kill -9 at random moments (seed ${SEED})`, function () {
  this.timeout(900_000) // `npm test` runs it behind the others, on what they leave, where two hundred processes have taken nine minutes to start; a round that hangs ends it sooner
  const settings = { listen: ['/ip4/127.0.0.1/tcp/0'], network: { inboundPerSecond: 1000 }, storage: { syncIntervalMs: SYNC_INTERVAL_MS } }
  let root = ''
  let source = ''
  let shas: Map<string, string>

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-kill-'))
    source = join(root, 'source')
    await writeSyntheticModel(source, { bytes: MODEL_BYTES, seed: SEED, shards: SHARDS })
    shas = await hashes(source)
  })
  after(async () => { await rm(root, { recursive: true, force: true }) })

  /** Ends what hangs: a round takes a second, or five where cores are full. */
  const inTime = async <T>(round: number, work: () => Promise<T>): Promise<T> => {
    const late = new AbortController()
    try {
      return await Promise.race([work(), setTimeout(ROUND_MS_MAX, undefined, { signal: late.signal }).then(() => { throw new Error(`round ${round} hangs`) })])
    } finally {
      late.abort()
    }
  }

  /** A killed loader finds every recorded block intact, serves no torn one, and fetches none again. */
  const killLoaders = async (): Promise<void> => {
    const random = seededRandom(SEED)
    const swarmKeyHex = randomBytes(32).toString('hex')
    await using provider = await NodeProcess.start({ dataDirectory: join(root, 'provider'), swarmKeyHex, settings })
    const { cid, bytes } = await provider.add(source)
    const directory = join(root, 'loader')
    const start = async (): Promise<NodeProcess> => await NodeProcess.start({ dataDirectory: directory, swarmKeyHex, linkBytesPerSecond: BYTES_PER_SECOND, settings: { ...settings, join: provider.multiaddrs } }, [], SHORT_LIVED)
    let loader = await start()
    let recorded = 0
    let inTheMiddle = 0
    for (let round = 0; round < ROUNDS / 2; round++) {
      const verified = await inTime(round, async () => {
        await loader.connect(provider.multiaddrs[0] ?? '')
        const loading = loader.load(cid)
        loading.catch(() => undefined) // it is killed
        await someMoment(loader, loading, random, bytes - recorded, recorded)
        await loader.kill()
        loader = await start()
        return await loader.verify()
      })
      assert.deepEqual(verified.bad, [], `round ${round}: a recorded block is not intact`)
      const after = (await loader.status()).models.bytes
      assert.ok(after >= recorded, `round ${round}: ${recorded} bytes were recorded, ${after} are left`)
      if (after > recorded && after < bytes) inTheMiddle++
      recorded = after
      if (recorded === bytes) {
        const done = await loader.load(cid)
        assert.equal(done.fetchedBytes, 0)
        assert.equal(done.reusedBytes, bytes)
        assert.deepEqual(await hashes(done.path ?? ''), shas)
        await loader.remove(cid)
        recorded = 0
      }
    }
    const before = (await loader.status()).models.bytes
    const last = await loader.load(cid)
    assert.equal(last.fetchedBytes, bytes - before, 'what was on disk was fetched again')
    assert.deepEqual(await hashes(last.path ?? ''), shas)
    await loader.stop()
    assert.ok(inTheMiddle >= Math.floor(ROUNDS / 20), `only ${inTheMiddle} of ${ROUNDS / 2} kills left a part of a load behind`)
  }

  /** Loads go on when providers are killed and come back. */
  const killProviders = async (): Promise<void> => {
    const random = seededRandom(SEED + 1)
    const swarmKeyHex = randomBytes(32).toString('hex')
    const steady = await NodeProcess.start({ dataDirectory: join(root, 'steady'), swarmKeyHex, settings })
    const { cid, bytes } = await steady.add(source)
    const directory = join(root, 'mortal')
    const start = async (): Promise<NodeProcess> => await NodeProcess.start({ dataDirectory: directory, swarmKeyHex, settings: { ...settings, join: steady.multiaddrs } }, [], SHORT_LIVED)
    let mortal = await start()
    await mortal.add(source)
    const loader = await NodeProcess.start({ dataDirectory: join(root, 'reader'), swarmKeyHex, settings: { ...settings, join: steady.multiaddrs, transfer: { peerBytesPerSecond: BYTES_PER_SECOND } } })
    let inTheMiddle = 0
    for (let round = 0; round < ROUNDS / 2; round++) {
      await loader.connect(mortal.multiaddrs[0] ?? '')
      let loads = true
      const loading = loader.load(cid).finally(() => { loads = false })
      await someMoment(loader, loading, random, bytes)
      const wasLoading = loads
      const killed = mortal.peerId
      await mortal.kill()
      const [result, restarted] = await inTime(round, async () => await Promise.all([loading, start()]))
      mortal = restarted
      assert.equal(result.fetchedBytes, bytes, `round ${round}`)
      if (wasLoading && (result.peers[killed] ?? 0) > 0) inTheMiddle++
      await loader.remove(cid)
      if (round % 10 === 0) assert.deepEqual((await mortal.verify()).bad, [])
      const status = await mortal.status()
      assert.equal(status.models.bytes, bytes, `round ${round}: the provider lost bytes that were recorded`)
    }
    await Promise.all([loader, mortal, steady].map(async node => { await node.stop() }))
    assert.ok(inTheMiddle >= Math.floor(ROUNDS / 20), `only ${inTheMiddle} of ${ROUNDS / 2} providers were killed while they served`)
  }

  // Most of a round is a process starting: the two run at the same time, a core each.
  it(`${ROUNDS / 2} loaders and ${ROUNDS / 2} providers`, async () => {
    const both = await Promise.allSettled([killLoaders(), killProviders()])
    for (const outcome of both) if (outcome.status === 'rejected') throw outcome.reason
  })
})

/**
 * Of a load of so many bytes beyond those it has: by the clock, which comes anywhere; or, of each two times, once that many
 * are there, which comes in the middle however slow the machine is.
 */
async function someMoment (node: NodeProcess, loading: Promise<unknown>, random: Random, bytes: number, had = 0): Promise<void> {
  const share = random.next()
  const moment = random.next() < 0.5
    ? setTimeout(share * (FINDING_MS + bytes / BYTES_PER_SECOND * 1000))
    : new Promise<void>(resolve => { node.onProgress = bytesDone => { if (bytesDone > had + share * bytes) resolve() } })
  await Promise.race([moment, loading.catch(() => undefined)])
  node.onProgress = () => undefined
}

async function hashes (directory: string): Promise<Map<string, string>> {
  const result = new Map<string, string>()
  for (const name of (await readdir(directory)).sort()) {
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(join(directory, name))) hash.update(chunk as Buffer)
    result.set(name, hash.digest('hex'))
  }
  return result
}
