import { writeSync } from 'node:fs'
import { systemClock } from '../../../src/base/index.ts'
import { fileOf, fileStore, smallModel, writeBlock } from '../../compliance/store-fixtures.ts'

/** Writes a model while somebody makes syncs fail; says what the store tells, and recovers. */
const [directory = ''] = process.argv.slice(2)
const clock = { ...systemClock, setTimeout: (fn: () => void, delayMs: number) => systemClock.setTimeout(fn, delayMs / 50) }
const store = fileStore(directory, { clock })
await store.start()
const log: string[] = []
store.events.on('blocks:present', ({ blocks }) => { log.push(...blocks.map(block => `present ${block}`)) })
store.events.on('blocks:lost', ({ blocks }) => { log.push(...blocks.map(block => `lost ${block}`)) })
store.events.on('volume:state', ({ writable }) => { log.push(writable ? 'writable' : 'read-only') })

const sample = smallModel(1, 3)
const content = sample.files[0]?.content ?? Buffer.alloc(0)
await store.putModel(sample.model)
const file = fileOf(store, sample)
const attempt = async (block: number): Promise<void> => {
  try {
    await writeBlock(store, file, content, block)
    await store.flush()
  } catch (error) {
    log.push(error instanceof Error ? error.name : String(error))
  }
}
const recovered = new Promise<void>(resolve => { store.events.on('volume:state', ({ writable }) => { if (writable) resolve() }) })
await attempt(0)
log.push(`recorded ${[...file.present].join()}`)
if (!(await store.status()).writable) {
  await attempt(1)
  await recovered
}
for (const block of [0, 1, 2]) await attempt(block)
log.push(`complete ${String(store.model(sample.cid)?.complete)}`, `bad ${(await store.verify(undefined)).bad.length}`)
await store.stop()
writeSync(1, JSON.stringify(log))
