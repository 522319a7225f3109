"""Scrapy's side of benchmarks/crawl.py: every page of a host, held until the end."""

import sys
from typing import ClassVar
from urllib.parse import urlsplit

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.linkextractors import LinkExtractor

pages: dict[str, bytes] = {}


class Pages(scrapy.Spider):
    name = "pages"
    start_urls: ClassVar = [sys.argv[1]]
    allowed_domains: ClassVar = [urlsplit(sys.argv[1]).hostname]
    links = LinkExtractor()

    def parse(self, response):
        pages[response.url] = response.body
        for link in self.links.extract_links(response):
            yield response.follow(link, self.parse)


if __name__ == "__main__":
    process = CrawlerProcess(
        {
            "ROBOTSTXT_OBEY": True,
            "CONCURRENT_REQUESTS": 16,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 16,
            "DOWNLOAD_DELAY": 0,
            "AUTOTHROTTLE_ENABLED": False,
            "COOKIES_ENABLED": False,
            "LOG_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "RETRY_ENABLED": False,
            "DEPTH_LIMIT": 20,
        }
    )
    process.crawl(Pages)
    process.start()
    print(len(pages), sum(map(len, pages.values())))
