import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { randomInt, seededRandom } from '../../../src/base/index.ts'
import { fileStore, seedOf, temporaryDirectory } from '../../compliance/store-fixtures.ts'
import { killModels } from './kill-models.ts'

const CHILD = fileURLToPath(new URL('kill-child.ts', import.meta.url))
/** More for the long run: SHOAL_KILL_ROUNDS=200. */
const ROUNDS = Number(process.env.SHOAL_KILL_ROUNDS ?? 5)

describe('files: kill -9', function () {
  this.timeout(20_000 + ROUNDS * 5_000)

  it(`at ${ROUNDS} random moments loses no recorded block and keeps no torn one`, async () => {
    const seed = seedOf()
    const random = seededRandom(seed)
    const models = killModels(seed)
    await using directory = await temporaryDirectory()
    let seen = 0
    for (let round = 0; round < ROUNDS; round++) {
      const context = `SHOAL_SEED=${seed}, round ${round}`
      const told = await runAndKill(directory.path, seed, randomInt(random, 1 << 30), random.next() * random.next() * 600)
      const store = fileStore(directory.path)
      await store.start()
      try {
        for (const { cid } of models) {
          if (told.removed.has(cid)) continue
          for (const file of store.model(cid)?.files ?? []) {
            for (const block of told.present.get(file.key) ?? []) assert.ok(file.present.has(block), `${context}: block ${block} of ${file.key} was recorded and is lost`)
          }
        }
        const { bad, blocks } = await store.verify(undefined)
        assert.deepEqual(bad, [], context)
        seen += blocks
        const once_ = await store.gc()
        assert.deepEqual(await store.gc(), { removed: [], freedBytes: 0, leftoverBytes: 0 }, `${context}: gc left something after ${JSON.stringify(once_)}`)
      } finally {
        await store.stop()
      }
    }
    assert.ok(seen > 0, `SHOAL_SEED=${seed}: no round recorded anything`)
  })
})

interface Told { present: Map<string, Set<number>>, removed: Set<string> }

/** Lets a child work for a while after it is ready, kills it, and returns what it was told by its store. */
async function runAndKill (directory: string, modelSeed: number, roundSeed: number, delayMs: number): Promise<Told> {
  const child = spawn(process.execPath, [CHILD, directory, String(modelSeed), String(roundSeed)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let errors = ''
  child.stderr.on('data', chunk => { errors += String(chunk) })
  const told: Told = { present: new Map(), removed: new Set() }
  const exited = once(child, 'exit')
  let ready = false
  for await (const line of createInterface(child.stdout)) {
    const [what, name = '', block] = line.split(' ')
    if (what === 'ready') {
      ready = true
      setTimeout(() => { child.kill('SIGKILL') }, delayMs)
    } else if (what === 'present') {
      const blocks = told.present.get(name) ?? new Set()
      told.present.set(name, blocks.add(Number(block)))
    } else {
      told.removed.add(name)
    }
  }
  const [, signal] = await exited
  assert.ok(ready && signal === 'SIGKILL', `the child ended by itself: ${errors}`)
  return told
}
