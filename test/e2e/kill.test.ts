import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MiB, randomInt, seededRandom } from '../../src/base/index.ts'
import { NodeProcess } from '../../scripts/lib/spawn-node.ts'
import { writeSyntheticModel } from '../../scripts/lib/synthetic-model.ts'

/** 200 kills by default: 100 of loaders, 100 of providers. SHOAL_KILL_ROUNDS and SHOAL_SEED change and replay it. */
const ROUNDS = Number(process.env.SHOAL_KILL_ROUNDS ?? 200)
const SEED = Number(process.env.SHOAL_SEED ?? Date.now() % 1_000_000)
const MODEL_BYTES = 24 * MiB

describe(`kill -9 at random moments (seed ${SEED})`, function () {
  this.timeout(240_000)
  const settings = { listen: ['/ip4/127.0.0.1/tcp/0'], network: { inboundPerSecond: 1000 } }
  let root = ''
  let source = ''
  let shas: Map<string, string>

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-kill-'))
    source = join(root, 'source')
    await writeSyntheticModel(source, { bytes: MODEL_BYTES, seed: SEED })
    shas = await hashes(source)
  })
  after(async () => { await rm(root, { recursive: true, force: true }) })

  /** A killed loader finds every recorded block intact, serves no torn one, and fetches none again. */
  const killLoaders = async (): Promise<void> => {
    const random = seededRandom(SEED)
    const swarmKeyHex = randomBytes(32).toString('hex')
    await using provider = await NodeProcess.start({ dataDirectory: join(root, 'provider'), swarmKeyHex, settings })
    const { cid, bytes } = await provider.add(source)
    const directory = join(root, 'loader')
    const start = async (): Promise<NodeProcess> => await NodeProcess.start({ dataDirectory: directory, swarmKeyHex, settings: { ...settings, join: provider.multiaddrs } })
    let loader = await start()
    let recorded = 0
    for (let round = 0; round < ROUNDS / 2; round++) {
      // Bytes to let through before the kill: anything from nothing to nearly all that is left.
      const killAt = recorded + random.next() * (bytes - recorded)
      const killed = new Promise<void>(resolve => {
        loader.onProgress = bytesDone => { if (bytesDone >= killAt) resolve() }
      })
      const loading = loader.load(cid).then(result => result, () => undefined)
      const result = await Promise.race([loading, killed])
      if (result === undefined && random.next() < 0.5) await new Promise(resolve => setTimeout(resolve, randomInt(random, 40)))
      await loader.kill()
      loader = await start()
      const verified = await loader.verify()
      assert.deepEqual(verified.bad, [], `round ${round}: a recorded block is not intact`)
      const after = (await loader.status()).models.bytes
      assert.ok(after >= recorded, `round ${round}: ${recorded} bytes were recorded, ${after} are left`)
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
  }

  /** Loads go on when providers are killed and come back. */
  const killProviders = async (): Promise<void> => {
    const random = seededRandom(SEED + 1)
    const swarmKeyHex = randomBytes(32).toString('hex')
    const steady = await NodeProcess.start({ dataDirectory: join(root, 'steady'), swarmKeyHex, settings })
    const { cid, bytes } = await steady.add(source)
    const directory = join(root, 'mortal')
    const start = async (): Promise<NodeProcess> => await NodeProcess.start({ dataDirectory: directory, swarmKeyHex, settings: { ...settings, join: steady.multiaddrs } })
    let mortal = await start()
    await mortal.add(source)
    const loader = await NodeProcess.start({ dataDirectory: join(root, 'reader'), swarmKeyHex, settings: { ...settings, join: steady.multiaddrs } })
    for (let round = 0; round < ROUNDS / 2; round++) {
      await loader.connect(mortal.multiaddrs[0] ?? '')
      const killAt = random.next() * bytes
      let kill: Promise<void> | undefined
      loader.onProgress = bytesDone => { if (bytesDone >= killAt) kill ??= mortal.kill() }
      const result = await loader.load(cid)
      assert.equal(result.fetchedBytes, bytes, `round ${round}`)
      await (kill ?? mortal.kill())
      await loader.remove(cid)
      mortal = await start()
      if (round % 10 === 0) assert.deepEqual((await mortal.verify()).bad, [])
      const status = await mortal.status()
      assert.equal(status.models.bytes, bytes, `round ${round}: the provider lost bytes that were recorded`)
    }
    await Promise.all([loader, mortal, steady].map(async node => { await node.stop() }))
  }

  // Most of a round is a process starting: the two run at the same time, a core each.
  it(`${ROUNDS / 2} loaders and ${ROUNDS / 2} providers`, async () => {
    const both = await Promise.allSettled([killLoaders(), killProviders()])
    for (const outcome of both) if (outcome.status === 'rejected') throw outcome.reason
  })
})

async function hashes (directory: string): Promise<Map<string, string>> {
  const result = new Map<string, string>()
  for (const name of (await readdir(directory)).sort()) {
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(join(directory, name))) hash.update(chunk as Buffer)
    result.set(name, hash.digest('hex'))
  }
  return result
}
