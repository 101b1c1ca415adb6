import type { Command } from 'commander'
import type { Verification } from '../../node/types.ts'
import { action } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { count, size, table } from '../format.ts'
import { namedModel } from '../named-model.ts'

export function addVerify (program: Command): void {
  program.command('verify')
    .description('re-hash what is held; exit code 4 if anything is bad, or was lost of what was added or pinned here, 1 if something could not be checked')
    .argument('[model]', 'only this one, by CID or name')
    .action(action(async (context, model: string | undefined) => {
      context.listenForInterrupts()
      const cid = model === undefined ? undefined : (await namedModel(context, model)).cid
      const progress = context.progress('verifying')
      const result = await context.client.verify(cid, { signal: context.signal, onProgress: now => { progress.update(now) } })
        .finally(() => { progress.stop() })
      context.print(result, describe(result))
      if (result.bad.length > 0 || result.lacking.length > 0) return EXIT.verification
      return result.unchecked === undefined ? EXIT.done : EXIT.failed
    }))
}

function describe ({ blocks, bytes, bad, unchecked, lacking }: Verification): string {
  const checked = `${count(blocks, 'block')}, ${size(bytes)} checked`
  const parts: string[] = []
  if (bad.length > 0) parts.push(`${table(['MODEL', 'FILE', '>BLOCK', 'REASON'], runs(bad).map(({ model, path, block, last, reason }) => [model, path, block === last ? String(block) : `${block}-${last}`, reason]))}\n`)
  if (bad.length > 0) parts.push(`${checked}: ${count(bad.length, 'block')} bad and withdrawn; fetch them again with shoal get CID`)
  else if (lacking.length > 0) parts.push(`${checked}, and what is here is good; not all is here`)
  else parts.push(`${checked}: ${unchecked === undefined ? 'all good' : 'these are good'}`)
  if (unchecked !== undefined) parts.push(`${count(unchecked.blocks, 'block')} could not be checked, and nothing was done about them: ${unchecked.reason}`)
  for (const { cid, bytes, published, away } of lacking) {
    if (away !== undefined) {
      parts.push(`${cid} lacks ${size(bytes)}: ${count(away.files, 'file')} held in place, ${away.path} first, ${away.files === 1 ? 'is' : 'are'} away; bring back what is there no more, or fetch it from others: shoal get ${cid}`)
      continue
    }
    parts.push(published
      ? `${cid} was added here and lacks ${size(bytes)} that are gone or changed; add it again, or fetch them from others: shoal get ${cid}`
      : `${cid} is pinned and lacks ${size(bytes)}; fetch them: shoal get ${cid}`)
  }
  return parts.join('\n')
}

/** A file that went as a whole is one line, not one for each of its blocks. */
function runs (bad: Verification['bad']): Array<Verification['bad'][number] & { last: number }> {
  const found: Array<Verification['bad'][number] & { last: number }> = []
  for (const each of bad) {
    const before = found.at(-1)
    if (before?.model === each.model && before.path === each.path && before.reason === each.reason && before.last === each.block - 1) before.last = each.block
    else found.push({ ...each, last: each.block })
  }
  return found
}
